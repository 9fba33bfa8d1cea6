package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/ublk-loop/ublk-loop/client"
)

// merge asks serve at the socket that is given.
func TestMergeAtSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	const id = 0xfffff // no process of a device has this number
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if want := fmt.Sprintf("/v1/devices/%d/merge", id); r.URL.Path != want {
			t.Errorf("the request is for %s, want %s", r.URL.Path, want)
		}
		_, _ = w.Write([]byte(`{"chunks":3}`)) // the client reports a failure
	})}}
	server.Start()
	defer server.Close()
	b := newBench()
	b.drv.devices = []client.Device{{ID: id, Device: fmt.Sprint("/dev/ublkb", id), State: "live", PID: 4, Table: "0 8 snapshot /base /store P 8"}}
	b.check(t, []string{"merge", fmt.Sprint(id), "--socket", socket}, 0, "3 chunks merged\n", "")
}
