package console

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"syscall"
)

// ErrNobody is what Call answers when no gateway serves at the socket.
var ErrNobody = errors.New("no gateway answers")

// Call has the gateway at the socket carry out a command, and copies what it
// writes to out. The error is the command's; ErrNobody if nobody is there. When ctx
// ends, the command is cancelled there.
func Call(ctx context.Context, path string, args []string, out io.Writer) error {
	var conn net.Conn
	err := shortly(path, func(name string) (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, "unix", name)
		return err
	})
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTSOCK), errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%w at %s", ErrNobody, path)
	case errors.Is(err, fs.ErrPermission):
		return fault("give the command as the user that the gateway runs as", "ask the gateway: %w", err)
	case err != nil:
		return fmt.Errorf("ask the gateway: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	text, err := json.Marshal(request{wireVersion, args})
	if err == nil {
		_, err = conn.Write(append(text, '\n'))
	}
	if err == nil {
		err = receive(conn, out)
	}
	if ctx.Err() != nil {
		return stopped{ctx.Err()}
	}
	return err
}

// receive copies the output and gives the ending as an error.
func receive(conn net.Conn, out io.Writer) error {
	in := bufio.NewReader(conn)
	var head [5]byte
	for {
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return fmt.Errorf("the gateway hung up before the command had ended: %w", err)
		}
		n := binary.BigEndian.Uint32(head[1:])
		if n > maxFrame {
			return fmt.Errorf("the gateway's answer is not in the expected form: frame of %d bytes", n)
		}
		p := make([]byte, n)
		if _, err := io.ReadFull(in, p); err != nil {
			return fmt.Errorf("the gateway hung up before the command had ended: %w", err)
		}
		switch head[0] {
		case 'o':
			if _, err := out.Write(p); err != nil {
				return fmt.Errorf("write output: %w", err)
			}
		case 'x':
			return ended(p)
		}
	}
}

func ended(p []byte) error {
	var e ending
	if err := json.Unmarshal(p, &e); err != nil {
		return fmt.Errorf("the gateway's answer is not in the expected form: %w", err)
	}
	if e.Status == StatusOK {
		return nil
	}
	return &Error{Err: errors.New(e.Error), Hint: e.Hint, Status: e.Status}
}
