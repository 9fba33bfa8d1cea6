package daemon

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// pass passes a task and files to a role in this process. It duplicates the descriptors,
// because a role owns those that it receives.
func pass(t *testing.T, task any, files descriptors, to any) descriptors {
	t.Helper()
	text, err := encode(task, files)
	if err != nil {
		t.Fatal(err)
	}
	var m message
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	for name, d := range m.Descriptors {
		if d.FD, err = unix.Dup(d.FD); err != nil {
			t.Fatal(err)
		}
		m.Descriptors[name] = d
	}
	if text, err = json.Marshal(&m); err != nil {
		t.Fatal(err)
	}
	passed, err := receive(singleRole, []string{strconv.Itoa(messageFD(t, append(text, '\n')))}, to)
	if err != nil {
		t.Fatal(err)
	}
	return passed
}

// messageFD returns a new descriptor with a message.
func messageFD(t *testing.T, text []byte) int {
	t.Helper()
	f, err := inMemory(text)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return duplicate(t, f)
}

func duplicate(t *testing.T, f *os.File) int {
	t.Helper()
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// A role gets the files by their names, and does not pass them on at an exec.
func TestMessage(t *testing.T) {
	r, err := os.OpenFile(filepath.Join(t.TempDir(), "a b"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w, err := os.OpenFile(r.Name(), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]int
	passed := pass(t, map[string]int{"x": 3}, descriptors{"out": w, "none": nil}, &got)
	w.Close()
	if got["x"] != 3 || len(passed) != 1 || passed["out"] == nil {
		t.Fatalf("task %v, descriptors %v", got, passed)
	}
	if passed["out"].Name() != w.Name() {
		t.Errorf("it is named %q, was %q", passed["out"].Name(), w.Name())
	}
	if flags, err := unix.FcntlInt(passed["out"].Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("it is inherited on: %#x, %v", flags, err)
	}
	if _, err := io.WriteString(passed["out"], "hello"); err != nil {
		t.Fatal(err)
	}
	passed.close()
	buf := make([]byte, 5)
	if _, err := io.ReadFull(r, buf); err != nil || string(buf) != "hello" {
		t.Errorf("read %q, error %v", buf, err)
	}
}

// A role reads the whole message from a stream, however long it is, and nothing behind
// it.
func TestMessageIsReadWhole(t *testing.T) {
	for n := range 1600 {
		ours, theirs, err := socketPair()
		if err != nil {
			t.Fatal(err)
		}
		fd := duplicate(t, theirs)
		// The stream itself is one of the descriptors, like a server's control.
		if _, err := fmt.Fprintf(ours, `{"task":%q,"descriptors":{"control":{"fd":%d}}}`+"\n", strings.Repeat("x", n), fd); err != nil {
			t.Fatal(err)
		}
		var task string
		files, err := receive(singleRole, []string{strconv.Itoa(fd)}, &task)
		if err != nil || len(task) != n {
			t.Fatalf("%d of %d bytes, error %v", len(task), n, err)
		}
		if _, err := io.WriteString(ours, stay); err != nil {
			t.Fatal(err)
		}
		word := make([]byte, len(stay))
		if _, err := io.ReadFull(files[controlFile], word); err != nil || string(word) != stay {
			t.Fatalf("a task of %d bytes: after the message comes %q, error %v", n, word, err)
		}
		for _, f := range []*os.File{ours, theirs, files[controlFile]} {
			_ = f.Close()
		}
	}
}

func TestReceiveRefuses(t *testing.T) {
	for _, args := range [][]string{{}, {""}, {"-1"}, {"x"}, {"60000"}, {fmt.Sprint(messageFD(t, []byte("{}\n")))}, {fmt.Sprint(messageFD(t, []byte("no end")))}} {
		var task singleTask
		if _, err := receive(singleRole, args, &task); err == nil || !strings.HasPrefix(err.Error(), "server-of-add: only add starts it") {
			t.Errorf("receive(%q): %v", args, err)
		}
	}
}

// A new process has each file under its number, and no other open file.
func TestTableKeepsNumbers(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	l := &launch{files: descriptors{"one": w, "none": nil}}
	table := l.table(nil, nil, os.Stderr, r)
	for fd, f := range table[3:] {
		if fd += 3; f != nil && int(f.Fd()) != fd {
			t.Errorf("number %d is to be %d", f.Fd(), fd)
		}
	}
	if table[w.Fd()] != w || table[r.Fd()] != r || table[2] != os.Stderr {
		t.Errorf("the table is %v", table)
	}
}

// close closes all of them.
func (d descriptors) close() {
	for _, f := range d {
		if f != nil {
			_ = f.Close()
		}
	}
}
