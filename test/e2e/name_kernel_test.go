package e2e

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// oddNames are file names that are not UTF-8, or that JSON and a terminal escape.
var oddNames = []string{"caf\xe9.img", "\xff\xfe\xed\xa0\x80", "a\nb\"c\\ <&>\ufffd.img"}

// oddlyNamed makes a file with an odd name.
func (b *bed) oddlyNamed(name string) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), name)
	b.write(path, strings.Repeat("x", 1<<20), 0o600)
	return path
}

// jsonName is a name in JSON, in the form that a program in any language reads.
type jsonName struct {
	File  string `json:"file"`
	Bytes string `json:"file_bytes"`
}

// named checks that a JSON object names a file.
func (b *bed) named(what, text, file string) {
	b.Helper()
	if !utf8.ValidString(text) {
		b.Errorf("%s is not UTF-8: %q", what, text)
	}
	var n jsonName
	b.decode(text, &n)
	bytes, err := base64.StdEncoding.DecodeString(n.Bytes)
	if err != nil {
		b.Errorf("%s: %v", what, err)
	}
	if utf8.ValidString(file) {
		if n.File != file || n.Bytes != "" {
			b.Errorf("%s has %+v, want %q", what, n, file)
		}
		return
	}
	if string(bytes) != file || n.File != strings.ToValidUTF8(strings.ReplaceAll(file, "\xff\xfe\xed\xa0\x80", "\ufffd\ufffd\ufffd\ufffd\ufffd"), "\ufffd") {
		b.Errorf("%s has %+v, %q; want %q", what, n, bytes, file)
	}
}

// first returns the first object of a JSON array.
func (b *bed) first(text string) string {
	b.Helper()
	var list []json.RawMessage
	b.decode(text, &list)
	if len(list) == 0 {
		b.Fatalf("nothing in %s", text)
	}
	return string(list[0])
}

// list, recover and del accept any file name.
func TestKernelNames(t *testing.T) {
	b := kernelBed(t, ublktest.OldestAndNewest)
	for _, name := range oddNames {
		file, log := b.oddlyNamed(name), filepath.Join(t.TempDir(), "log")
		b.named("add", b.ok("add", "--json", "--on-crash=reissue", "--log-file="+log, file), file)
		for _, args := range [][]string{{"-j", file}, nil} {
			b.named("list", b.first(b.ok(append([]string{"list", "--json"}, args...)...)), file)
		}
		line, _, _ := strings.Cut(b.readFile(log), "\n")
		b.named("log", line, file)
		s := b.list()[0]
		b.named("state", b.statusOf(s), file)
		b.killServer(s)
		b.ok("recover", file)
		b.works(s)
		if err := os.Remove(file); err != nil { // then only the name leads to the device
			t.Fatal(err)
		}
		b.del(file)
	}
}

// statusOf returns the status in a device's state file.
func (b *bed) statusOf(s client.Device) string {
	b.Helper()
	var state struct{ Status json.RawMessage }
	b.decode(b.readFile("/run/ublk-loop/"+strings.TrimPrefix(s.Device, "/dev/ublkb")+".json"), &state)
	return string(state.Status)
}

// The protocol of a server of many devices also carries any file name.
func TestKernelNamesOfServe(t *testing.T) {
	b := kernelBed(t, ublktest.OldestAndNewest)
	for _, name := range oddNames {
		m := b.serve("--on-crash=reissue")
		file := b.oddlyNamed(name)
		request := map[string]any{"file": strings.ToValidUTF8(file, "?"), "file_bytes": []byte(file)}
		body, err := json.Marshal(request)
		if err != nil {
			t.Fatal(err)
		}
		b.named("POST", m.curl("-f", "-d", string(body), "http://x/v1/devices"), file)
		b.named("GET", b.first(m.curl("-f", "http://x/v1/devices")), file)
		var stats struct{ Devices json.RawMessage }
		b.decode(m.curl("-f", "http://x/v1/stats"), &stats)
		b.named("stats", b.first(string(stats.Devices)), file)
		if text := m.metrics(); !utf8.ValidString(text) {
			t.Errorf("metrics are not UTF-8: %q", text)
		}
		s := b.list("-j", file)[0]
		p := b.pulse(s) // in use, so that it outlives the server
		b.ok("upgrade")
		b.named("after upgrade", b.first(m.curl("-f", "http://x/v1/devices")), file)
		m.kill()
		m = b.serve("--on-crash=reissue")
		b.named("after a crash", b.first(m.curl("-f", "http://x/v1/devices")), file)
		b.end(p)
		logged := 0
		for line := range strings.Lines(m.errOut.String()) {
			if strings.Contains(line, `"msg":"recovered"`) {
				b.named("log", line, file)
				logged++
			}
		}
		if logged == 0 {
			t.Errorf("the log has no recovery of %q", file)
		}
		b.del(file)
		m.stop()
	}
}
