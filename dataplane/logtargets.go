package dataplane

import (
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

const (
	logDialTimeout  = 5 * time.Second
	logWriteTimeout = 10 * time.Second
)

func (f *logForwarder) open(kind, name string) (logTarget, error) {
	switch {
	case kind == "tcp":
		return dialLog(name)
	case name == "/dev/stdout":
		return logOutput{f.stdout}, nil
	case name == "/dev/stderr":
		return logOutput{f.stderr}, nil
	}
	return openLog(name)
}

// logOutput is an output of the launcher itself.
type logOutput struct{ io.Writer }

func (o logOutput) write(lines []byte) error {
	_, err := o.Write(lines)
	return err
}

func (logOutput) close() {}

// logFile appends to a file, and makes it anew when it was moved away, as those who rotate logs do.
type logFile struct {
	path string
	file *os.File
}

func openLog(path string) (*logFile, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		_ = file.Close()
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	return &logFile{path, file}, nil
}

func (l *logFile) write(lines []byte) error {
	mine, err := l.file.Stat()
	if err != nil {
		return err
	}
	if there, err := os.Stat(l.path); err != nil || !os.SameFile(mine, there) {
		next, err := openLog(l.path)
		if err != nil {
			return err
		}
		_ = l.file.Close()
		l.file = next.file
	}
	_, err = l.file.Write(lines)
	return err
}

func (l *logFile) close() { _ = l.file.Close() }

// logConn sends to a receiver, which says nothing.
type logConn struct {
	net.Conn
	// gone closes when the receiver hung up, which a write would notice one write too late.
	gone chan struct{}
}

func dialLog(address string) (*logConn, error) {
	conn, err := net.DialTimeout("tcp", address, logDialTimeout)
	if err != nil {
		return nil, err
	}
	c := &logConn{conn, make(chan struct{})}
	go func() {
		defer close(c.gone)
		_, _ = io.Copy(io.Discard, conn) // ends with the connection
	}()
	return c, nil
}

func (c *logConn) write(lines []byte) error {
	select {
	case <-c.gone:
		return io.EOF
	default:
	}
	if err := c.SetWriteDeadline(time.Now().Add(logWriteTimeout)); err != nil {
		return err
	}
	_, err := c.Write(lines)
	return err
}

func (c *logConn) close() {
	_ = c.Close()
	<-c.gone
}
