// Package crashdisk is a disk that forgets what was not flushed, counts what it is
// asked for, and may take as long over it as a flash card does: for tests and
// measurements.
package crashdisk
