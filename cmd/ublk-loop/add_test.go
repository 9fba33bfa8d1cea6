package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/daemon"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop"
)

func someFile(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "disk.img")
	if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAdd(t *testing.T) {
	path := someFile(t)
	b := newBench()
	b.srv.status = someDevices()[0]
	b.check(t, []string{"add", path}, 0, "/dev/ublkb0\n", "")
	if !b.srv.stayed || b.srv.ended {
		t.Errorf("stayed %v, ended %v", b.srv.stayed, b.srv.ended)
	}
	if b.job.Name != path {
		t.Errorf("the job is for %s", b.job.Name)
	}
	want := listedJSON[2 : len(listedJSON)-2] // list prints an array, add its one element
	b.check(t, []string{"add", "--json", path}, 0, outdent(want), "")
}

// outdent takes two spaces from the start of each line.
func outdent(text string) string {
	var out []byte
	for i := 0; i < len(text); i++ {
		if i == 0 || text[i-1] == '\n' {
			i += 2
		}
		out = append(out, text[i])
	}
	return string(out)
}

// If standard output may be closed, a warning has the path of the device. A redirection by a shell
// is not closed.
func TestAddClosedOutput(t *testing.T) {
	for mode, warning := range map[int]string{
		os.O_RDWR:   "ublk-loop: warning: /dev/ublkb0: the device is served, but standard output is closed or discarded\n",
		os.O_WRONLY: "",
	} {
		null, err := os.OpenFile(os.DevNull, mode, 0)
		if err != nil {
			t.Fatal(err)
		}
		b := newBench()
		b.srv.status = someDevices()[0]
		b.app.out = null
		b.check(t, []string{"add", someFile(t)}, 0, "", warning)
		path := someFile(t)
		b.check(t, []string{"losetup", "-f", "--show", path}, 0, "", strings.ReplaceAll(warning,
			"ublk-loop: warning: /dev/ublkb0: the device is served", "losetup: "+path+": the device is /dev/ublkb0"))
		if err := null.Close(); err != nil || !b.srv.stayed {
			t.Errorf("stayed %v, error %v", b.srv.stayed, err)
		}
	}
}

// When add fails, the server ends and the device does not stay.
func TestAddFails(t *testing.T) {
	path := someFile(t)
	b := newBench()
	b.srv.err = &hint.Error{Err: errors.New("open " + path + ": empty"), Hint: "fill it"}
	b.check(t, []string{"add", path}, 1, "", "ublk-loop: error: open "+path+": empty\nhint: fill it\n")
	if b.srv.stayed || !b.srv.ended {
		t.Errorf("stayed %v, ended %v", b.srv.stayed, b.srv.ended)
	}
	b = newBench()
	b.srv.err = unix.EIO
	b.check(t, []string{"add", path}, 1, "", "ublk-loop: error: attach "+path+": input/output error\n")
	b = newBench()
	b.app.out = brokenWriter{}
	b.check(t, []string{"add", path}, 1, "", "ublk-loop: error: attach "+path+": no space left on device\n")
	if b.srv.stayed || !b.srv.ended {
		t.Errorf("without output: stayed %v, ended %v", b.srv.stayed, b.srv.ended)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, unix.ENOSPC }

func TestAddBadFile(t *testing.T) {
	b := newBench()
	dir := t.TempDir()
	b.check(t, []string{"add", dir}, 1, "", "ublk-loop: error: open "+dir+": is a directory\n")
	b.check(t, []string{"add", dir + "/x"}, 1, "", "ublk-loop: error: open "+dir+"/x: no such file or directory\n")
	path := someFile(t)
	b.check(t, []string{"add", "--log-file", dir + "/x/y", path}, 1, "",
		"ublk-loop: error: open log: open "+dir+"/x/y: no such file or directory\n")
	if b.job != nil {
		t.Error("a server was started")
	}
}

// Each flag reaches the job, in its long and its short form.
func TestAddFlags(t *testing.T) {
	path := someFile(t)
	seven := uint32(7)
	for _, tt := range []struct {
		args []string
		want loop.Config
	}{
		{nil, loop.Config{}},
		{[]string{"-n", "7"}, loop.Config{ID: &seven}},
		{[]string{"--id=7"}, loop.Config{ID: &seven}},
		{[]string{"-r"}, loop.Config{ReadOnly: true}},
		{[]string{"--read-only"}, loop.Config{ReadOnly: true}},
		{[]string{"-o1M"}, loop.Config{Offset: 1 << 20}},
		{[]string{"--offset", "512"}, loop.Config{Offset: 512}},
		{[]string{"--sizelimit", "1G"}, loop.Config{SizeLimit: 1 << 30}},
		{[]string{"-b", "4K"}, loop.Config{SectorSize: 4096}},
		{[]string{"--sector-size=1024"}, loop.Config{SectorSize: 1024}},
		{[]string{"--direct-io=on"}, loop.Config{DirectIO: loop.SwitchOn}},
		{[]string{"--direct-io", "off"}, loop.Config{DirectIO: loop.SwitchOff}},
		{[]string{"-P"}, loop.Config{PartScan: true}},
		{[]string{"--partscan"}, loop.Config{PartScan: true}},
		{[]string{"--on-crash=fail"}, loop.Config{OnCrash: loop.CrashFail}},
		{[]string{"--on-crash", "requeue"}, loop.Config{OnCrash: loop.CrashRequeue}},
		{[]string{"--on-crash", "reissue"}, loop.Config{OnCrash: loop.CrashReissue}},
		{[]string{"-q", "3"}, loop.Config{Queues: 3}},
		{[]string{"--queues=4096"}, loop.Config{Queues: 4096}},
		{[]string{"-d", "1"}, loop.Config{Depth: 1}},
		{[]string{"--depth", "4096"}, loop.Config{Depth: 4096}},
		{[]string{"--max-io", "32M"}, loop.Config{MaxIOBytes: 32 << 20}},
		{[]string{"--zero-copy=on"}, loop.Config{ZeroCopy: loop.SwitchOn}},
		{[]string{"--zero-copy=off"}, loop.Config{ZeroCopy: loop.SwitchOff}},
		{[]string{"--zero-copy=off", "--zero-copy=auto"}, loop.Config{}},
		{[]string{"--shared"}, loop.Config{Shared: true}},
		{[]string{"-rPn7", "-d2"}, loop.Config{ReadOnly: true, PartScan: true, ID: &seven, Depth: 2}},
	} {
		b := newBench()
		b.check(t, append([]string{"add", path}, tt.args...), 0, "\n", "")
		for _, s := range []*loop.Switch{&tt.want.DirectIO, &tt.want.ZeroCopy} {
			if *s == "" {
				*s = loop.SwitchAuto
			}
		}
		if !reflect.DeepEqual(b.job.Config, tt.want) {
			t.Errorf("add %q: %+v, want %+v", tt.args, b.job.Config, tt.want)
		}
	}
}

func TestAddForeground(t *testing.T) {
	path := someFile(t)
	b := newBench()
	log := filepath.Join(t.TempDir(), "log")
	b.check(t, []string{"add", "--foreground", "--json", "--log-file", log, path}, 0, "", "")
	if !b.job.Foreground || !b.job.JSON || b.job.Log == nil {
		t.Errorf("job is %+v", b.job)
	}
	if b.srv.stayed || b.srv.ended {
		t.Error("a server was started in the background")
	}
	if st, err := os.Stat(log); err != nil || st.Mode() != 0o600 {
		t.Errorf("log: %v, %v", st, err)
	}
}

// Bad values are usage errors, which are found before any file is opened.
func TestAddUsage(t *testing.T) {
	help := "\nhint: see ublk-loop add --help\n"
	sectors := "not 512, 1024, 2048 or 4096"
	ids := "not a number from 0 to 1048575"
	counts := "not a number from 1 to 4096"
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{}, "add: FILE is missing"},
		{[]string{"x", "y"}, `add: unexpected argument "y"`},
		{[]string{"x", "-z"}, "unknown shorthand flag: 'z' in -z"},
		{[]string{"x", "--offset"}, "flag needs an argument: --offset"},
		{[]string{"x", "-o", ""}, `--offset "": empty`},
		{[]string{"x", "-o", "-1"}, `--offset "-1": negative`},
		{[]string{"x", "--offset=1Q"}, `--offset "1Q": unknown unit "Q"`},
		{[]string{"x", "--offset=9223372036854775808"}, `--offset "9223372036854775808": 2^63 bytes or more`},
		{[]string{"x", "--offset=8E"}, `--offset "8E": 2^63 bytes or more`},
		{[]string{"x", "--sizelimit=-1"}, `--sizelimit "-1": negative`},
		{[]string{"x", "--sizelimit=1Q"}, `--sizelimit "1Q": unknown unit "Q"`},
		{[]string{"x", "-b", "513"}, `--sector-size "513": ` + sectors},
		{[]string{"x", "-b", "0"}, `--sector-size "0": ` + sectors},
		{[]string{"x", "-b", "8192"}, `--sector-size "8192": ` + sectors},
		{[]string{"x", "-b", "4294967808"}, `--sector-size "4294967808": ` + sectors},
		{[]string{"x", "-b", "x"}, `--sector-size "x": not a number of bytes`},
		{[]string{"x", "-n", "-1"}, `--id "-1": ` + ids},
		{[]string{"x", "-n", "1048576"}, `--id "1048576": ` + ids},
		{[]string{"x", "-n", "4294967296"}, `--id "4294967296": ` + ids},
		{[]string{"x", "-n", ""}, `--id "": ` + ids},
		{[]string{"x", "-q", "0"}, `--queues "0": ` + counts},
		{[]string{"x", "-q", "-1"}, `--queues "-1": ` + counts},
		{[]string{"x", "-q", "4097"}, `--queues "4097": ` + counts},
		{[]string{"x", "-q", "18446744073709551617"}, `--queues "18446744073709551617": ` + counts},
		{[]string{"x", "-d", "0"}, `--depth "0": ` + counts},
		{[]string{"x", "-d", "1K"}, `--depth "1K": ` + counts},
		{[]string{"x", "--max-io", "0"}, `--max-io "0": not from 4K to 32M`},
		{[]string{"x", "--max-io", "33M"}, `--max-io "33M": not from 4K to 32M`},
		{[]string{"x", "--max-io", "5000"}, `--max-io "5000": not a multiple of 4K`},
		{[]string{"x", "--max-io", "4G"}, `--max-io "4G": not from 4K to 32M`},
		{[]string{"x", "--direct-io", "yes"}, `--direct-io "yes": not auto, on or off`},
		{[]string{"x", "--direct-io="}, `--direct-io "": not auto, on or off`},
		{[]string{"x", "--zero-copy", "ON"}, `--zero-copy "ON": not auto, on or off`},
	} {
		if os.Getpagesize() != 4096 && len(tt.args) > 1 && tt.args[1] == "--max-io" {
			continue
		}
		b := newBench()
		b.check(t, append([]string{"add"}, tt.args...), 2, "", "ublk-loop: error: "+tt.want+help)
		if b.job != nil {
			t.Errorf("add %q: a server was started", tt.args)
		}
	}
}

// A successful add prints the server's warnings. A failed add prints only its error.
func TestAddWarnings(t *testing.T) {
	path := someFile(t)
	b := newBench()
	start := b.app.start
	b.app.start = func(ctx context.Context, j *daemon.Job) (daemon.Pending, error) {
		j.Warnings = append(j.Warnings, "not safe")
		return start(ctx, j)
	}
	b.check(t, []string{"add", path}, 0, "\n", "ublk-loop: warning: "+path+": not safe\n")
	b.srv.err = errors.New("no driver")
	b.check(t, []string{"add", path}, 1, "", "ublk-loop: error: attach "+path+": no driver\n")
}
