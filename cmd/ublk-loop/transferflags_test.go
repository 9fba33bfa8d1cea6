package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/transfer"
)

// The test's keys have exactly the number of bytes that a transfer takes.
var (
	key32 = strings.Repeat("k", 16) + strings.Repeat("K", 16)
	key64 = strings.Repeat("k", 32) + strings.Repeat("K", 32)
)

func someKey(t *testing.T, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// The key reaches the server, and appears in no output and in no other field.
func TestAddTransfer(t *testing.T) {
	path, key := someFile(t), someKey(t, key64, 0o600)
	for _, tt := range []struct {
		args    []string
		want    loop.TransferConfig
		wantKey string
	}{
		{nil, loop.TransferConfig{}, ""},
		{[]string{"--transfer", "none"}, loop.TransferConfig{Name: "none"}, ""},
		{[]string{"--transfer", "xor", "--key-file", key}, loop.TransferConfig{Name: "xor"}, key64},
		{[]string{"--transfer", "aes-xts-plain64", "--key-file", key}, loop.TransferConfig{Name: "aes-xts-plain64"}, key64},
		{
			[]string{"--transfer=aes-xts-plain64", "--key-file", key, "--strict-key", "--iv-offset=8", "--iv-large-sectors", "--allow-discards"},
			loop.TransferConfig{Name: "aes-xts-plain64", IVOffset: 8, IVLargeSectors: true, AllowDiscards: true},
			key64,
		},
	} {
		for _, foreground := range []bool{false, true} {
			b := newBench()
			args := append([]string{"add", path}, tt.args...)
			out := "\n" // the empty path of the fake device
			if foreground {
				args, out = append(args, "--foreground"), ""
			}
			b.check(t, args, 0, out, "")
			if b.job.Config.Transfer != tt.want || b.key != tt.wantKey {
				t.Errorf("%q: transfer %+v, key %q", args, b.job.Config.Transfer, b.key)
			}
			if text := fmt.Sprintf("%+v", *b.job); strings.Contains(text, "kkkk") {
				t.Errorf("%q: the job is %s", args, text)
			}

		}
	}
}

func TestAddTransferUsage(t *testing.T) {
	key := someKey(t, key64, 0o600)
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--transfer", "rot13"}, `--transfer "rot13": not none, xor, aes-xts-plain64 or aes-xts-plain`},
		{[]string{"--transfer", "xor"}, "--transfer xor: the key is missing: give it with --key-file"},
		{[]string{"--transfer", "aes-xts-plain64"}, "--transfer aes-xts-plain64: the key is missing: give it with --key-file"},
		{[]string{"--transfer", "none", "--key-file", key}, "--key-file: it needs --transfer or --luks"},
		{[]string{"--key-file", key}, "--key-file: it needs --transfer or --luks"},
		{[]string{"--key-fd", "0"}, "--key-fd: it needs --transfer or --luks"},
		{[]string{"--key-description", "k"}, "--key-description: it needs --transfer or --luks"},
		{[]string{"--allow-discards"}, "--allow-discards: it needs --transfer or --luks"},
		{[]string{"--iv-offset", "8"}, "--iv-offset: it needs --transfer or --luks"},
		{[]string{"--iv-large-sectors"}, "--iv-large-sectors: it needs --transfer or --luks"},
		{[]string{"--strict-key"}, "--strict-key needs the path of a file with --key-file"},
		{[]string{"--luks", "--strict-key", "--key-fd", "0"}, "--strict-key needs the path of a file with --key-file"},
		{[]string{"--luks", "--strict-key", "--key-file", "-"}, "--strict-key needs the path of a file with --key-file"},
		{[]string{"--luks", "--transfer", "aes-xts-plain64"}, "--luks and --transfer: the header defines the transfer"},
		{[]string{"--luks", "--iv-offset", "8"}, "--iv-offset: the header defines it"},
		{[]string{"--luks", "--iv-large-sectors"}, "--iv-large-sectors: the header defines it"},
		{[]string{"--transfer", "xor", "--key-file", key, "--iv-offset", "8"}, "--iv-offset: xor does not count sectors"},
		{[]string{"--transfer", "xor", "--key-file", key, "--iv-large-sectors"}, "--iv-large-sectors: xor does not count sectors"},
		{[]string{"--transfer", "xor", "--key-file", key, "--key-fd", "0"}, "--key-file and --key-fd are mutually exclusive"},
		{[]string{"--luks", "--key-description", "k", "--key-fd", "0"}, "--key-fd and --key-description are mutually exclusive"},
	} {
		b := newBench()
		b.check(t, append([]string{"add", "x"}, tt.args...), 2, "", "ublk-loop: error: "+tt.want+"\nhint: see ublk-loop add --help\n")
	}
}

func TestKeyFile(t *testing.T) {
	path := someFile(t)
	good, open := someKey(t, key32, 0o600), someKey(t, key32, 0o644)
	empty, long := someKey(t, "", 0o600), someKey(t, strings.Repeat("k", transfer.MaxKeyBytes+1), 0o600)
	missing := filepath.Join(t.TempDir(), "none")
	said := func(text string) string { return "ublk-loop: error: attach " + path + ": key file " + text }
	for _, tt := range []struct {
		args   []string
		status int
		errors string
	}{
		{[]string{"--key-file", good}, 0, ""},
		{[]string{"--key-file", open}, 0, "ublk-loop: warning: " + path + ": key file " + open + ": other users have access to it (mode 0644)\n"},
		{
			[]string{"--key-file", open, "--strict-key"},
			1,
			said(open+": other users have access to it (mode 0644): permission denied\nhint: chmod 600 ") + open + "\n",
		},
		{[]string{"--key-file", empty}, 1, said(empty + ": empty: invalid argument\n")},
		{[]string{"--key-file", long}, 1, said(long + ": more than 512 bytes: invalid argument\n")},
		{[]string{"--key-file", missing}, 1, said(missing + ": no such file or directory\n")},
		{[]string{"--key-file", filepath.Dir(good)}, 1, said(filepath.Dir(good) + ": is a directory\n")},
	} {
		b := newBench()
		out := ""
		if tt.status == 0 {
			out = "\n"
		}
		b.check(t, append([]string{"add", path, "--transfer", "xor"}, tt.args...), tt.status, out, tt.errors)
		if (b.job == nil) != (tt.status != 0) {
			t.Errorf("%q: a server: %v", tt.args, b.job != nil)
		}
	}
}

func TestKeyFD(t *testing.T) {
	path := someFile(t)
	f, err := os.Open(someKey(t, key32, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	passed, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD, 3) // as the starter of a program passes it
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(passed)
	b := newBench()
	b.check(t, []string{"add", path, "--transfer", "xor", "--key-fd", strconv.Itoa(passed)}, 0, "\n", "")
	if b.key != key32 {
		t.Errorf("key %q", b.key)
	}
	// Another number can be that of a descriptor of this program.
	for _, fd := range []int{987, int(f.Fd())} {
		b.check(t, []string{"add", path, "--transfer", "xor", "--key-fd", strconv.Itoa(fd)}, 1, "",
			fmt.Sprintf("ublk-loop: error: attach %s: key of descriptor %d: bad file descriptor\n", path, fd))
		b.check(t, []string{"add", "--fd", strconv.Itoa(fd)}, 1, "",
			fmt.Sprintf("ublk-loop: error: attach descriptor %d: bad file descriptor\n", fd))
	}
}

func TestNotLUKS(t *testing.T) {
	path := someFile(t)
	b := newBench()
	b.check(t, []string{"add", path, "--luks", "--key-file", someKey(t, "secret", 0o600)}, 1, "",
		"ublk-loop: error: attach "+path+": not a LUKS volume\nhint: if the header is in another file, name that with --header\n")
	b.check(t, []string{"add", path, "--luks", "--offset", "1M", "--key-file", someKey(t, "secret", 0o600)}, 1, "",
		"ublk-loop: error: open "+path+": offset 1048576: not below the size 4096: invalid argument\n")
}
