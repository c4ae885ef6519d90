package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"golang.org/x/sys/unix"
)

// sink acknowledges every publish unread and keeps nothing: how far it goes is
// how far client and loopback go. With always it first writes over a page and
// flushes it, once for all that a client has sent by then: the least that a
// durable acknowledgement through a socket costs. A disk that had nothing to do
// meanwhile takes longer for that than one that is flushed without a pause.
func (s served) sink(ctx context.Context) error {
	var f *os.File
	if s.always {
		var err error
		if f, err = pageFile(s.dir); err != nil {
			return fmt.Errorf("serve sink: %w", err)
		}
		defer f.Close()
	}
	ln, err := net.Listen("tcp", s.mqtt)
	if err != nil {
		return fmt.Errorf("serve sink: %w", err)
	}
	context.AfterFunc(ctx, func() { ln.Close() })
	for {
		c, err := ln.Accept()
		if err != nil {
			return ctx.Err()
		}
		go func() {
			defer c.Close()
			sinkClient(c, f)
		}()
	}
}

// pageFile is a file of one page that was written and flushed, so that no block
// need be found for it later.
func pageFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(flushPage()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// sinkClient serves one connection until it ends or sends what is no packet.
func sinkClient(c net.Conn, f *os.File) {
	r, w := bufio.NewReaderSize(c, 32<<10), bufio.NewWriterSize(c, 8<<10)
	page := flushPage()
	for {
		answer, ok := sinkPacket(r)
		if !ok {
			return
		}
		w.Write(answer) // an error stays, and Flush gives it
		if r.Buffered() > 0 || w.Buffered() == 0 {
			continue
		}
		if f != nil {
			if _, err := f.WriteAt(page, 0); err != nil || unix.Fdatasync(int(f.Fd())) != nil {
				return // the client misses its acknowledgement
			}
		}
		c.SetWriteDeadline(time.Now().Add(writeTimeout))
		if w.Flush() != nil {
			return
		}
	}
}

// sinkPacket reads one packet and gives the answer to it.
func sinkPacket(r *bufio.Reader) (answer []byte, ok bool) {
	head, err := r.ReadByte()
	if err != nil {
		return nil, false
	}
	n, _, err := packets.DecodeLength(r)
	if err != nil || n > maxPacket {
		return nil, false
	}
	switch head >> 4 {
	case packets.Connect:
		answer = []byte{packets.Connack << 4, 2, 0, 0}
	case packets.Disconnect:
		return nil, false
	case packets.Publish:
		var b [2]byte
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return nil, false
		}
		topic := int(binary.BigEndian.Uint16(b[:]))
		if n -= topic + 4; n < 0 {
			return nil, false
		}
		if _, err := r.Discard(topic); err != nil {
			return nil, false
		}
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return nil, false
		}
		answer = []byte{packets.Puback << 4, 2, b[0], b[1]}
	}
	_, err = r.Discard(n)
	return answer, err == nil
}
