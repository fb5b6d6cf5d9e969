package dataplane

import (
	"context"
	"io"
	"path/filepath"
	"sync"
	"time"
)

// observer runs what a launcher does for the observation of its Envoy: forwarding access logs and serving metrics.
type observer struct {
	logs    *logForwarder
	endServ context.CancelFunc
	endLogs context.CancelFunc
	running sync.WaitGroup
}

// observe starts it; stop must be called when Envoy has ended.
func (l Launch) observe(dir, adminSocket string) (*observer, error) {
	stdout, stderr := l.Stdout, l.Stderr
	if stdout == nil {
		stdout = io.Discard
	}
	if stderr == nil {
		stderr = io.Discard
	}
	logs, err := newLogForwarder(stdout, stderr, l.Log)
	if err != nil {
		return nil, err
	}
	scraper := newScraper(filepath.Join(dir, agentSocket), adminSocket, logs, l.Log)
	socket, err := scraper.listen()
	if err != nil {
		_ = logs.reader.Close()
		_ = logs.writer.Close()
		return nil, err
	}
	o := &observer{logs: logs}
	serving, endServ := context.WithCancel(context.Background())
	logging, endLogs := context.WithCancel(context.Background())
	o.endServ, o.endLogs = endServ, endLogs
	o.running.Add(2)
	go func() {
		defer o.running.Done()
		scraper.run(serving, socket)
	}()
	go func() {
		defer o.running.Done()
		logs.run(logging)
	}()
	return o, nil
}

// stop lets the lines that Envoy left behind reach their targets, for a while.
func (o *observer) stop() {
	o.endServ()
	_ = o.logs.writer.Close() // Envoy's own end closed with it, so the reader sees the end
	timer := time.AfterFunc(logGrace, func() {
		o.endLogs()
		_ = o.logs.reader.Close()
	})
	o.running.Wait()
	timer.Stop()
	o.endLogs()
	_ = o.logs.reader.Close()
}
