package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ublk-loop/ublk-loop/transfer/table"
)

// tableOf writes a table to a file, with paths for $A and $B.
func tableOf(t *testing.T, text string) (path, a, b string) {
	t.Helper()
	a, b = someFile(t), someFile(t)
	path = filepath.Join(t.TempDir(), "table")
	text = strings.NewReplacer("$A", a, "$B", b).Replace(text)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, a, b
}

// The job has the text of the table and the open files, in the order of the text.
func TestAddTable(t *testing.T) {
	path, a, c := tableOf(t, "0 4 linear $B 0 # first\n4 8 striped 2 2 $A 0 $B 4\n")
	b := newBench()
	b.check(t, []string{"add", "--table", path, "-r", "-n3"}, 0, "\n", "")
	j := b.job
	if want := "0 4 linear " + c + " 0\n4 8 striped 2 2 " + a + " 0 " + c + " 4\n"; j.Config.Table != want {
		t.Errorf("table %q", j.Config.Table)
	}
	if len(j.Files) != 2 || j.Files[0].Name() != c || j.Files[1].Name() != a || j.File != nil {
		t.Errorf("files %v", j.Files)
	}
	if !j.Config.ReadOnly || *j.Config.ID != 3 || j.Standalone || j.Autoclear != 0 || j.Name != "table of "+path {
		t.Errorf("job %+v", j)
	}
}

// A table has a process of its own with --standalone, and can go when it is no longer in use.
func TestAddTableServer(t *testing.T) {
	path, _, _ := tableOf(t, "0 4 zero")
	b := newBench()
	b.check(t, []string{"add", "--table", path, "--standalone"}, 0, "\n", "")
	if !b.job.Standalone {
		t.Errorf("job %+v", b.job)
	}
	b = newBench()
	b.check(t, []string{"add", "--table", path, "--autoclear=3s"}, 0, "\n", "")
	if b.job.Standalone || b.job.Autoclear != 3*time.Second {
		t.Errorf("job %+v", b.job)
	}
}

// A wrong table is one line with the line, the target and the argument, and starts nothing.
func TestAddWrongTable(t *testing.T) {
	for text, want := range map[string]string{
		"0 4 linear $A":                   "line 1: linear: 1 arguments, not 2: invalid",
		"0 4 zero\n4 4 linear /nothing 0": `line 2: linear: device "/nothing": open /nothing: no such file or directory`,
		"0 4 zero\n5 4 zero":              "line 2: zero: start 5: gap, because the line before ends at 4: invalid",
		"0 4 thin $A 0":                   "line 1: thin: target of device mapper: unsupported operation",
		"0 4 crypt aes-xts-plain64 " + strings.Repeat("0123456789abcdef", 7) + " 0 $A 0": "line 1: crypt: key: 56 bytes, not 32 or 64: invalid",
		"0 4 crypt aes-xts-plain64 :64:user:k 0 $A 0":                                    "line 1: crypt: key: k: required key not available",
		"a,,,,0 4 linear /dev/mapper/b 0;b,,,,0 4 zero":                                  `table a: line 1: linear: device "/dev/mapper/b": a later table: no such file or directory`,
		strings.Repeat("#", table.MaxText+1):                                             "text longer than 1048576 bytes: limit exceeded",
	} {
		path, _, _ := tableOf(t, text)
		b := newBench()
		b.check(t, []string{"add", "--table", path}, 1, "", "ublk-loop: error: attach table of "+path+": "+want+"\n")
		if b.job != nil {
			t.Errorf("%q: a server was started", text)
		}
	}
}

// The text of a table is refused, without a word of it. A file can have such a name.
func TestAddTableText(t *testing.T) {
	b := newBench()
	want := "ublk-loop: error: --table: the text of a table, not the name of a file\nhint: --table - reads the table from standard input\n"
	b.check(t, []string{"add", "--table", "0 8 crypt aes-xts-plain64 " + strings.Repeat("01", 64) + " 0 a.img 0"}, 2, "", want)
	b.check(t, []string{"add", "--table", "top,,,rw,0 8 zero"}, 2, "", want)
	path := filepath.Join(t.TempDir(), "0 4 zero")
	if err := os.WriteFile(path, []byte("0 4 zero"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.check(t, []string{"add", "--table", path}, 0, "\n", "")
}

// Flags without an effect on a table are refused, and so is a FILE beside it.
func TestAddTableFlags(t *testing.T) {
	path, _, _ := tableOf(t, "0 4 zero")
	for flag, want := range map[string]string{
		"--offset=0": "--offset", "--sizelimit=1M": "--sizelimit", "--sector-size=512": "--sector-size", "--transfer=none": "--transfer",
		"--luks": "--luks", "--key-file=x": "--key-file", "--key-fd=3": "--key-fd", "--key-description=x": "--key-description",
		"--strict-key": "--strict-key", "--iv-offset=1": "--iv-offset", "--iv-large-sectors": "--iv-large-sectors",
		"--allow-discards": "--allow-discards",
	} {
		b := newBench()
		b.check(t, []string{"add", "--table", path, flag}, 2, "", "ublk-loop: error: "+want+": not with --table\nhint: see ublk-loop add --help\n")
	}
	b := newBench()
	b.check(t, []string{"add", "--table", path, "x"}, 2, "", "ublk-loop: error: --table and x: a table names its files itself\nhint: see ublk-loop add --help\n")
	b.check(t, []string{"add", "--table", "/nothing"}, 1, "", "ublk-loop: error: attach table of /nothing: open /nothing: no such file or directory\n")
}

// A key in the text reaches the job by a descriptor, and is not in the configuration. A file
// that others can read is worth a warning.
func TestAddTableWithKey(t *testing.T) {
	hex := strings.Repeat("0123456789abcdef", 4) + strings.Repeat("fedcba9876543210", 4)
	path, a, _ := tableOf(t, "0 4 crypt aes-xts-plain64 "+hex+" 0 $A 0\n")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	b := newBench()
	b.check(t, []string{"add", "--table", path}, 0, "\n",
		"ublk-loop: warning: table of "+path+": table with a key in "+path+": other users have access to it (mode 0644)\n")
	if want := "0 4 crypt aes-xts-plain64 :64:user:ublk-loop 0 " + a + " 0\n"; b.job.Config.Table != want {
		t.Errorf("table %q", b.job.Config.Table)
	}
	if b.key != "\x01\x23\x45\x67\x89\xab\xcd\xef"+b.key[8:] || len(b.key) != 64 || b.key[32] != 0xfe {
		t.Errorf("key %x", b.key)
	}
}
