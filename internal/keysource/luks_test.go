package keysource

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/transfer/luks"
)

func TestUseVolume(t *testing.T) {
	v := luks.Volume{Version: 2, UUID: "u", Offset: 4096, Size: 8192, SectorSize: 512, IVOffset: 8, Cipher: "aes-xts-plain"}
	for _, tt := range []struct {
		offset, limit, total uint64
		want                 uint64 // expected size limit
	}{
		{1 << 20, 0, 4096 + 8192, 0}, // a volume that reaches the end of the file has no limit
		{1 << 20, 0, 4096 + 8192 + 100, 8192},
		{1 << 20, 4096 + 8192, 4096 + 8192, 8192},
	} {
		c := loop.Config{Offset: tt.offset, SizeLimit: tt.limit}
		useVolume(&v, &c, tt.total)
		want := loop.Config{Offset: tt.offset + 4096, SizeLimit: tt.want, Transfer: loop.TransferConfig{
			Name: "aes-xts-plain", SectorSize: 512, IVOffset: 8, LUKS: 2, UUID: "u", LUKSOffset: tt.offset,
		}}
		if c != want {
			t.Errorf("%+v: %+v", tt, c)
		}
	}
}

// Unlock explains a wrong passphrase that ends with a newline, as echo writes it, because
// the cause is hard to see.
func TestExplainUnlock(t *testing.T) {
	wrong := fmt.Errorf("x: %w", luks.ErrWrongPassphrase)
	for _, tt := range []struct {
		err  error
		pass string
		want string // a part of the hint, "" for no hint
	}{
		{wrong, "secret\n", "ends with a newline"},
		{wrong, "secret\r\n", "ends with a newline"},
		{wrong, "\n", "printf %s"},
		{wrong, "sec\nret", ""},
		{wrong, "secret", ""},
		{unix.EIO, "secret\n", ""},
		{luks.ErrLimit, "secret\n", "more memory"},
		{fmt.Errorf("%w (not tried: %w)", wrong, luks.ErrLimit), "secret\n", "more memory"},
	} {
		err := explainUnlock(tt.err, []byte(tt.pass))
		var h *hint.Error
		got := ""
		if errors.As(err, &h) {
			got = h.Hint
		}
		if !errors.Is(err, tt.err) || !strings.Contains(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("%v of %q: %v, hint %q, want %q", tt.err, tt.pass, err, got, tt.want)
		}
		if strings.Contains(err.Error()+got, "secret") {
			t.Errorf("the passphrase is in %v, or in %q", err, got)
		}
	}
}

// Unlock takes the whole file for the passphrase, and mentions a final newline if the
// passphrase is wrong.
func TestUnlockWithNewline(t *testing.T) {
	compressed, err := os.Open("../../transfer/luks/testdata/luks1-sha256-256.img.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = compressed.Close() }()
	z, err := gzip.NewReader(compressed)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	image, pass := filepath.Join(t.TempDir(), "image"), filepath.Join(t.TempDir(), "pass")
	if err := errors.Join(os.WriteFile(image, data, 0o600), os.Truncate(image, 4<<20)); err != nil {
		t.Fatal(err)
	}
	file, err := loop.OpenPath(image)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for text, wanted := range map[string]bool{"second passphrase": false, "second passphrase\n": true} {
		if err := os.WriteFile(pass, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		source := Source{Kind: File, File: pass}
		key, _, err := source.Unlock(t.Context(), file, &loop.Config{})
		var h *hint.Error
		if got := errors.As(err, &h) && strings.Contains(h.Hint, "newline"); got != wanted || errors.Is(err, luks.ErrWrongPassphrase) != wanted {
			t.Errorf("%q: error %v, hint %t", text, err, got)
		}
		if err == nil {
			key.Close()
		}
	}
}
