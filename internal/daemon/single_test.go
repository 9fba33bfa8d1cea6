package daemon

import (
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk"
)

func TestDescribe(t *testing.T) {
	five := uint32(5)
	for _, tt := range []struct {
		config     loop.Config
		err        error
		want, hint string
	}{
		{loop.Config{}, fmt.Errorf("open /x: %w", unix.EISDIR), "open /x: is a directory", ""},
		{loop.Config{}, fmt.Errorf("add device: %w", unix.EIO), "attach /x: add device: input/output error", ""},
		{
			loop.Config{ID: &five},
			fmt.Errorf("add device: %w", unix.EEXIST),
			"make /dev/ublkb5: attach /x: add device: file exists", "this number is taken; without --id the device gets the first free number",
		},
		{loop.Config{ID: &five}, fmt.Errorf("add device: %w", unix.EIO), "attach /x: add device: input/output error", ""},
		{
			loop.Config{ZeroCopy: loop.SwitchOn},
			fmt.Errorf("add device: %w", ublk.ErrNotSupported),
			"attach /x: add device: not supported by this kernel", "omit --zero-copy; ublk-loop features shows what the kernel offers",
		},
		{loop.Config{}, fmt.Errorf("add device: %w", ublk.ErrNotSupported), "attach /x: add device: not supported by this kernel", ""},
	} {
		err := (&single{task: singleTask{Name: "/x"}, config: tt.config}).describe(tt.err)
		if err.Error() != tt.want || report.Hint(err) != tt.hint || !errors.Is(err, errors.Unwrap(tt.err)) {
			t.Errorf("%v is described as %q, hint %q", tt.err, err, report.Hint(err))
		}
	}
}

// socketFiles returns two ends of a stream.
func socketFiles(t *testing.T) (add, server *os.File) {
	t.Helper()
	add, server, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = add.Close(), server.Close() })
	return add, server
}

// A server stays only if its starter tells it to.
func TestStarter(t *testing.T) {
	for word, ok := range map[string]bool{stay: true, "": false, "sta": false, "stop\n": false} {
		add, control := socketFiles(t)
		result := make(chan error, 1)
		go func() { result <- (&starter{control}).Ready(client.Device{ID: 3}, 0) }()
		if _, err := add.Read(make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(add, word); err != nil {
			t.Fatal(err)
		}
		add.Close()
		if err := <-result; (err == nil) != ok {
			t.Errorf("told %q: %v", word, err)
		}
	}
	add, control := socketFiles(t)
	add.Close()
	if err := (&starter{control}).Ready(client.Device{}, 0); err == nil {
		t.Error("ready for nobody")
	}
}

func TestLoggerOfNobody(t *testing.T) {
	const id = 1 << 31 // which no device has
	defer func() { _ = os.Remove(loop.CrashPath(id)) }()
	if (&single{}).logger(id).core.Enabled(5) {
		t.Error("a server in the background logs")
	}
}
