// Package generation keeps what was not drained soon in small badger databases,
// each written once: built aside, closed, copied, flushed, sealed, renamed, and from
// then on only read. A database that is never written in place cannot be harmed by a
// power cut, and gives its space back as a whole.
//
//	{folder}/g-%08d/       a generation: badger's files and SEAL, which is written last
//	{folder}/g-%08d.tmp/   an unfinished or dropped one, removed when the set is opened
//
// It knows keys and values, not what is in them.
package generation
