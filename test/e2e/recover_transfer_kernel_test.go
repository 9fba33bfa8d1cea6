package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// An encrypted device needs its key again, and accepts no other key, through which it
// would write noise to the disk.
func TestKernelRecoverTransfer(t *testing.T) {
	b := kernelBed(t, ublktest.Soak)
	for _, tt := range []struct {
		name    string
		prepare func(b *bed, path, key string)
		add     []string
		wrong   string // a part of the error for another key
	}{
		{"plain", func(*bed, string, string) {}, []string{"--transfer", "aes-xts-plain64"}, "not the key that the device was made with"},
		{"LUKS", func(b *bed, path, key string) {
			b.dm("cryptsetup", "luksFormat", "--batch-mode", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", key, path)
		}, []string{"--luks"}, "wrong passphrase"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := b.in(t)
			path := b.image(24 << 20)
			key, _ := b.keyFile(64)
			other, _ := b.keyFile(64)
			tt.prepare(b, path, key)
			s := b.add(append(tt.add, "--key-file", key, "--on-crash", "reissue", path)...)
			data := randomBytes(1 << 20)
			b.store(s.Device, data)
			b.killServer(s)
			b.waits(s)
			if tt.name == "plain" {
				b.run("recover").fails(t, 1, s.Device, "no key", "hint: --key-file")
			}
			b.run("recover", "--key-file", other, s.Device).fails(t, 1, s.Device, tt.wrong)
			b.waits(s)
			b.ok("recover", "--key-file", key, s.Device)
			if got := b.head(s.Device)[:len(data)]; string(got) != string(data) {
				t.Error("other bytes than before")
			}
			b.del(s.Device)
		})
	}
	plain := b.add("--on-crash", "reissue", b.image(1<<20))
	b.killServer(plain)
	key, _ := b.keyFile(64)
	b.run("recover", "--key-file", key, plain.Device).fails(t, 1, plain.Device, "a key without a transfer")
	b.recover(plain)
	b.del(plain.Device)
}

// The state file of an xor device has no check of the key, because the check would reveal
// the key.
func TestKernelStateHasNoKey(t *testing.T) {
	b := kernelBed(t)
	key, _ := b.keyFile(64)
	s := b.add("--transfer", "xor", "--key-file", key, b.image(1<<20))
	state, err := os.ReadFile(filepath.Join("/run/ublk-loop", strings.TrimPrefix(s.Device, "/dev/ublkb")+".json"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(state), "key_check") {
		t.Errorf("of xor, whose check would be the key: %s", state)
	}
	b.del(s.Device)
}
