package conform

import (
	"fmt"
	"io"
	"net"
	"time"

	"github.com/gorilla/websocket"
)

// socketStream makes a connection of a WebSocket. A frame that is not binary ends
// the row.
type socketStream struct {
	*websocket.Conn
	t     *Try
	write func([]byte) error // cuts what is sent into frames
	r     io.Reader          // of the frame that is being read, or nil
}

func (s *socketStream) Write(p []byte) (int, error) {
	if err := s.write(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (s *socketStream) Read(p []byte) (int, error) {
	for {
		if s.r == nil {
			kind, r, err := s.NextReader()
			if err != nil {
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				s.t.failf("the server sent a frame of type %d, want binary", kind)
			}
			s.r = r
		}
		n, err := s.r.Read(p)
		if err == io.EOF {
			s.r, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (s *socketStream) SetDeadline(t time.Time) error {
	if err := s.SetReadDeadline(t); err != nil {
		return fmt.Errorf("set read deadline: %w", err)
	}
	return s.SetWriteDeadline(t)
}

var _ net.Conn = (*socketStream)(nil)
