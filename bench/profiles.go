package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

const (
	// sliceTime is how long one profile of the processor is, after which a process may be killed without a loss of more.
	sliceTime = 5 * time.Second
	// profilePort is where processes under test serve their profiles unless -debug-address says so.
	profilePort = 6060
)

// sums are the profiles of all that a process did since its start.
var sums = []string{"allocs", "mutex", "block"}

// profiles stores those of the processes under test, a folder for what is measured and in it one for each process: cpu-1.pb.gz and so
// on, which `go tool pprof` adds up, and allocs-1, mutex-1 and block-1 for each life of the process. What happened before is
// in allocs-before and its like, for `go tool pprof -base`. A nil one stores nothing. It is for one goroutine.
type profiles struct {
	dir string
	// at is where each process serves its profiles, by its name.
	at        map[string]string
	recording []*recording
}

// recording is of one process while something is measured.
type recording struct {
	dir, address string
	slices, life int
	end          context.CancelFunc
	flush        chan chan error
	done         sync.WaitGroup
	err          error // of the goroutine, until it is done
}

func newProfiles(dir string, at map[string]string) *profiles {
	if dir == "" {
		return nil
	}
	return &profiles{dir: dir, at: at}
}

// begin stores what comes under another name.
func (p *profiles) begin(name string) error {
	if p == nil {
		return nil
	}
	if err := p.stop(); err != nil {
		return err
	}
	for _, process := range slices.Sorted(maps.Keys(p.at)) {
		ctx, end := context.WithCancel(context.Background())
		r := &recording{dir: filepath.Join(p.dir, name, process), address: p.at[process], end: end, flush: make(chan chan error)}
		if err := os.MkdirAll(r.dir, 0o755); err != nil {
			end()
			return fmt.Errorf("profiles: %w", err)
		}
		if err := r.sums("before"); err != nil {
			end()
			return err
		}
		p.recording = append(p.recording, r)
		r.done.Go(func() { r.run(ctx) })
	}
	return nil
}

// mark stores what is not stored yet of processes that are about to be killed.
func (p *profiles) mark() error {
	if p == nil {
		return nil
	}
	for _, r := range p.recording {
		answer := make(chan error)
		r.flush <- answer
		if err := <-answer; err != nil {
			return err
		}
	}
	return nil
}

// stop ends it.
func (p *profiles) stop() error {
	if p == nil {
		return nil
	}
	var first error
	for _, r := range p.recording {
		r.end()
	}
	for _, r := range p.recording {
		r.done.Wait()
		if first == nil {
			first = r.err
		}
	}
	p.recording = nil
	return first
}

// run takes one profile of the processor after another. It waits for a process that isn't there.
func (r *recording) run(ctx context.Context) {
	for {
		waiting, err := r.slice()
		if err != nil {
			r.err = err
		}
		wait := time.Millisecond // in which whoever is about to kill the process goes before the next profile
		if waiting {
			wait = 10 * time.Millisecond
		}
		select {
		case <-ctx.Done():
			if err := r.lived(); r.err == nil {
				r.err = err
			}
			return
		case answer := <-r.flush:
			answer <- r.lived()
		case <-time.After(wait):
		}
	}
}

// slice stores one profile of the processor; waiting says that nobody gave one.
func (r *recording) slice() (waiting bool, err error) {
	data, err := r.get(fmt.Sprintf("profile?seconds=%d", int(sliceTime.Seconds())))
	if err != nil {
		return true, nil
	}
	r.slices++
	return false, r.store(fmt.Sprintf("cpu-%d", r.slices), data)
}

// lived stores what a process did in its life.
func (r *recording) lived() error {
	r.life++
	return r.sums(fmt.Sprint(r.life))
}

// sums stores what a process did until now, if it is there.
func (r *recording) sums(suffix string) error {
	for _, name := range sums {
		data, err := r.get(name)
		if err != nil {
			return nil
		}
		if err := r.store(name+"-"+suffix, data); err != nil {
			return err
		}
	}
	return nil
}

func (r *recording) store(name string, data []byte) error {
	if err := os.WriteFile(filepath.Join(r.dir, name+".pb.gz"), data, 0o644); err != nil {
		return fmt.Errorf("profiles: %w", err)
	}
	return nil
}

func (r *recording) get(what string) ([]byte, error) {
	resp, err := http.Get("http://" + r.address + "/debug/pprof/" + what)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", what, resp.Status)
	}
	return io.ReadAll(resp.Body)
}

// serveProfiles has this process serve its own, as what is simulated takes its part of the processors, until close is called.
func serveProfiles(address string) (at string, close func(), err error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return "", nil, fmt.Errorf("profiles: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan struct{})
	go func() {
		defer func() { ended <- struct{}{} }()
		_ = server.Serve(listener) // it ends by Close alone
	}()
	return listener.Addr().String(), func() {
		_ = server.Close()
		<-ended
	}, nil
}
