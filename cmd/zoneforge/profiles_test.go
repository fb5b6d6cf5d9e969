package main

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestProfilesAreServedUntilStopped(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	stop, err := profile("127.0.0.1:0", zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	address, _ := logs.All()[0].ContextMap()["address"].(string)
	resp, err := http.Get("http://" + address + "/debug/pprof/goroutine?debug=1")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || !strings.Contains(string(body), "goroutine profile") {
		t.Errorf("%v, %.200s", err, body)
	}
	stop()
	http.DefaultClient.CloseIdleConnections()
	if _, err := http.Get("http://" + address + "/debug/pprof/"); err == nil {
		t.Error("profiles are served after the stop")
	}
}

func TestNoProfilesWithoutAnAddress(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	stop, err := profile("", zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	stop()
	if logs.Len() > 0 {
		t.Errorf("%v", logs.All())
	}
}
