package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// TestSlowHeaders has a gateway end requests whose headers don't come to an end, while one whose headers are there may wait longer.
func TestSlowHeaders(t *testing.T) {
	f := newFederation(t)
	f.startGlobal()
	f.startZone("east", 2)
	f.apply(strictMesh, edgeGateway, permit("default", "all", "*", "*", "ALLOW"), gatewayRoute("echo", "", toEcho),
		timeoutOf("{http: {requestTimeout: 0s}}"))
	asked, release := make(chan bool, 1), make(chan bool)
	f.workload(f.at(31, 8080), "echo", map[string]http.HandlerFunc{"/silent": func(w http.ResponseWriter, r *http.Request) {
		asked <- true
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}})
	f.startProxy("east", 2, "echo", sidecarDocument("default", "echo", f.host(31), inboundOf("echo", "http", f.host(31), 8080, "")), f.serviceToken("echo"))
	f.startProxy("east", 2, "edge", gatewayDocument("default", "edge", f.host(10)), f.serviceToken("edge"))
	f.settled("east", 2)
	url := "http://" + f.at(10, 8080)
	f.answers(newClient(t), http.StatusOK, "GET", url+"/")

	// What is answered in the end has waited for as long as the headers of the others. One of the gateway's workers may not know the way yet.
	type answer struct {
		status int
		err    error
	}
	var patient chan answer
	f.await("a request that waits for its answer", func() error {
		patient = make(chan answer, 1)
		go func(to chan<- answer) {
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			r, err := client.Get(url + "/silent")
			if err != nil {
				to <- answer{err: err}
				return
			}
			to <- answer{r.StatusCode, r.Body.Close()}
		}(patient)
		select {
		case <-asked:
			return nil
		case got := <-patient:
			return fmt.Errorf("it is answered: %v", got)
		}
	})

	slow := map[string]func(net.Conn) (int, error){
		"HTTP/1.1": func(conn net.Conn) (int, error) {
			if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: example.com\r\nX-Slow: "); err != nil {
				return 0, err
			}
			r, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				return 0, err
			}
			return r.StatusCode, r.Body.Close()
		},
		"HTTP/2": halfOfHeaders,
	}
	ended := make(chan bool)
	for name, ask := range slow {
		go func() {
			defer func() { ended <- true }()
			conn, err := net.DialTimeout("tcp", f.at(10, 8080), answerTime)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(2 * answerTime)); err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			if got, err := ask(conn); err != nil || got != http.StatusRequestTimeout {
				t.Errorf("%s: %d %v, want %d", name, got, err, http.StatusRequestTimeout)
			}
		}()
	}
	for range slow {
		<-ended
	}
	close(release)
	if got := <-patient; got.err != nil || got.status != http.StatusOK {
		t.Errorf("the request that waits for its answer: %v", got)
	}
}

// halfOfHeaders begins a request of HTTP/2 whose headers go on in a frame that never comes, and reads the status that it is answered with.
func halfOfHeaders(conn net.Conn) (int, error) {
	framer := http2.NewFramer(conn, bufio.NewReader(conn))
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var block bytes.Buffer
	if err := hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":method", Value: "GET"}); err != nil {
		return 0, err
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return 0, err
	}
	if err := framer.WriteSettings(); err != nil {
		return 0, err
	}
	if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true}); err != nil {
		return 0, err
	}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return 0, err
		}
		if answer, ok := frame.(*http2.MetaHeadersFrame); ok {
			return strconv.Atoi(answer.PseudoValue("status"))
		}
	}
}
