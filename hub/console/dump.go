package console

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"time"
	"unicode"
	"unicode/utf8"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/wire"
	"holdfast.dev/holdfast/storage"
)

// line is one message in a dump: everything that is known of it.
type line struct {
	Queue    string   `json:"queue"`
	Position uint64   `json:"position"`
	State    string   `json:"state"`            // pending or parked
	Reason   string   `json:"reason,omitempty"` // why it is parked
	Sender   string   `json:"sender"`
	Arrived  *arrived `json:"arrived,omitempty"`
	Age      *float64 `json:"age_seconds,omitempty"` // at least
	AgeMost  *float64 `json:"age_at_most_seconds,omitempty"`
	TTL      float64  `json:"ttl_seconds,omitempty"` // none: for ever
	Note     []byte   `json:"note,omitempty"`        // of this copy, in base64

	ID         string      `json:"id,omitempty"` // the property holdfast-id upstream
	QoS        *byte       `json:"qos,omitempty"`
	Topic      string      `json:"topic,omitempty"`
	Output     string      `json:"output,omitempty"`
	Properties *properties `json:"properties,omitempty"`
	RawBag     string      `json:"properties_encoded,omitempty"` // where not all of them are text
	Body       *string     `json:"body,omitempty"`
	Encoding   string      `json:"body_encoding,omitempty"` // utf-8 or base64

	Error  string `json:"error,omitempty"`  // why it cannot be read
	Record []byte `json:"record,omitempty"` // a record of a newer program, in base64
}

// arrived is the stamp of a record, whole: only so can an age be told later.
type arrived struct {
	Wall  time.Time `json:"wall"`
	Grade string    `json:"grade"`
	Boot  string    `json:"boot"`
	Up    float64   `json:"up_seconds"`
}

// dump writes what waits as JSON Lines.
func (d *Desk) dump(ctx context.Context, out io.Writer, name string, p part) error {
	qs, err := d.queues(name)
	if err != nil {
		return err
	}
	return d.lines(ctx, out, qs[0], p)
}

func (d *Desk) lines(ctx context.Context, out io.Writer, q *storage.Queue, p part) error {
	w, why := lineWriter{out}, reasonsOf(q)
	return each(ctx, q, p, func(s storage.Seen) error {
		l := d.line(s)
		l.Queue = q.Name()
		if s.Parked {
			l.Reason = why.of(s)
		}
		return w.write(l)
	})
}

func (d *Desk) line(s storage.Seen) line {
	l := line{Position: uint64(s.Position), State: "pending", Sender: s.Sender}
	if s.Parked {
		l.State = "parked"
	}
	if s.Err != nil {
		l.Error = s.Err.Error()
		return l
	}
	l.Arrived = &arrived{s.Stamp.Wall, s.Stamp.Grade.String(), fmt.Sprintf("%016x", s.Stamp.Boot), s.Stamp.Up.Seconds()}
	l.Age, l.AgeMost = d.seconds(s.Stamp)
	l.TTL, l.Note = s.TTL.Seconds(), s.Note
	m, err := hub.Decode(&s.Item)
	if err != nil {
		l.Error, l.Record = err.Error(), s.Body
		return l
	}
	l.ID, l.QoS, l.Topic, l.Output = m.ID, &m.QoS, m.Topic, m.Output
	if m.Props != "" {
		l.Properties = (*properties)(&m.Props)
		for k, v := range m.Props.All() {
			if !utf8.ValidString(k) || !utf8.ValidString(v) {
				l.RawBag = string(m.Props)
			}
		}
	}
	l.body(m.Body)
	return l
}

func (l *line) body(b []byte) {
	text := string(b)
	l.Encoding = "utf-8"
	if !utf8.Valid(b) {
		text, l.Encoding = base64.StdEncoding.EncodeToString(b), "base64"
	}
	l.Body = &text
}

// properties are a bag as a JSON object in the bag's order, which a map would lose.
type properties wire.Bag

// MarshalJSON writes the pairs; of two equal keys both, the first is the one that
// counts.
func (p properties) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for k, v := range wire.Bag(p).All() {
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		for i, s := range []string{k, v} {
			text, err := json.Marshal(s)
			if err != nil {
				return nil, err
			}
			b.Write(text)
			if i == 0 {
				b.WriteByte(':')
			}
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// lineWriter writes JSON Lines that are safe to look at: what is not printable in
// a string is escaped, also where JSON would allow it bare.
type lineWriter struct{ w io.Writer }

func (w lineWriter) write(v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	_, err := w.w.Write(escape(b.Bytes()))
	return err
}

// escape writes every rune without a shape as \u. Outside of strings JSON has only
// ASCII, so it can be done afterwards.
func escape(text []byte) []byte {
	out := make([]byte, 0, len(text)+16)
	for _, r := range string(text) {
		switch {
		case r == '\n' || unicode.IsPrint(r):
			out = utf8.AppendRune(out, r)
		case r > 0xffff:
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out
}
