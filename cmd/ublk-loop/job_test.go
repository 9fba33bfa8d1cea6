package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/loop"
)

func TestJob(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	id := uint32(3)
	sent := &job{
		Name: "/srv/a b", Config: loop.Config{ID: &id, Offset: 512, DirectIO: loop.SwitchOn},
		Foreground: true, FileFD: -1, LogFD: -1, NotifyFD: -1, KeyFD: -1, Warnings: []string{"careful"},
	}
	if err := sent.send(w); err != nil {
		t.Fatal(err)
	}
	w.Close()
	fd, err := unix.Dup(int(r.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	got, control, err := receiveJob([]string{strconv.Itoa(fd), "/srv/a b"})
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("control is inherited on: %#x, %v", flags, err)
	}
	if !reflect.DeepEqual(got, sent) {
		t.Errorf("received %+v, want %+v", got, sent)
	}
}

// What comes after a job is read from its beginning, however long the job is.
func TestJobIsReadWhole(t *testing.T) {
	for n := range 1600 {
		ours, theirs, err := socketPair()
		if err != nil {
			t.Fatal(err)
		}
		if err := (&job{Name: strings.Repeat("x", n), FileFD: -1, LogFD: -1, NotifyFD: -1, KeyFD: -1}).send(ours); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Dup(int(theirs.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		_, control, err := receiveJob([]string{strconv.Itoa(fd)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(ours, stay); err != nil {
			t.Fatal(err)
		}
		word := make([]byte, len(stay))
		if _, err := io.ReadFull(control, word); err != nil || string(word) != stay {
			t.Fatalf("a name of %d bytes: after the job comes %q, error %v", n, word, err)
		}
		for _, f := range []*os.File{ours, theirs, control} {
			_ = f.Close()
		}
	}
}

func TestReceiveJobRefuses(t *testing.T) {
	for _, args := range [][]string{{}, {""}, {"-1"}, {"x"}, {"60000"}} {
		if _, _, err := receiveJob(args); err == nil || !strings.HasPrefix(err.Error(), "server-of-add: only add starts it") {
			t.Errorf("receiveJob(%q): %v", args, err)
		}
	}
}

// A server says one line, which tells a device from an error.
func TestAnswer(t *testing.T) {
	for _, a := range []answer{{Status: &client.Device{ID: 3}}, {Error: "no\nroom", Hint: "make some"}} {
		line, err := json.Marshal(a)
		if err != nil || bytes.Contains(line, []byte("\n")) {
			t.Fatalf("%s, %v", line, err)
		}
		var got answer
		if err := json.Unmarshal(line, &got); err != nil || !reflect.DeepEqual(got, a) {
			t.Errorf("%s becomes %+v, %v", line, got, err)
		}
	}
}
