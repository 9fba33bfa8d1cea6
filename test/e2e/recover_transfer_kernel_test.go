package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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

// A signal ends a command that waits for a key which does not come.
func TestKernelKeyInterrupted(t *testing.T) {
	m := mountBed(t)
	image, other, dir, fifo := m.image(1<<20), m.image(1<<20), t.TempDir(), filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	key, _ := m.keyFile(64)
	cipher := []string{"--transfer", "aes-xts-plain64", "--key-file"}
	s := m.add(append(cipher, key, "--on-crash", "reissue", image)...)
	m.killServer(s)
	m.waits(s)
	for _, sig := range []unix.Signal{unix.SIGINT, unix.SIGTERM} {
		for _, cmd := range []*exec.Cmd{
			m.command(append([]string{"add"}, append(cipher, fifo, other)...)...),
			m.command("recover", "--key-file", fifo, s.Device),
			m.command("key", "--key-file", fifo, s.Device),
			exec.Command("/sbin/mount.ublk-loop", other, dir, "-o", "ublk.transfer=xor,ublk.key-file="+fifo),
		} {
			m.interruptsRead(cmd, fifo, sig)
		}
	}
	m.waits(s)
	m.ok("recover", "--key-file", key, s.Device)
	m.del(s.Device)
}

// interruptsRead sends a signal to a command that reads from a FIFO without data, and checks that
// this ends the command.
func (m *mounts) interruptsRead(cmd *exec.Cmd, fifo string, sig unix.Signal) {
	m.Helper()
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		m.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { // until the command ends
		_ = cmd.Wait()
		close(ended)
	}()
	var writer *os.File
	waitUntil(m, "the command opens the FIFO", func() (opened bool) {
		var err error
		writer, err = os.OpenFile(fifo, os.O_WRONLY|unix.O_NONBLOCK, 0) // fails without a reader
		return err == nil
	})
	defer writer.Close()
	if err := cmd.Process.Signal(sig); err != nil {
		m.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(waitLimit):
		m.Errorf("%q goes on after %v", cmd.Args, sig)
		_ = cmd.Process.Kill()
		<-ended
	}
	if status := cmd.ProcessState.ExitCode(); status != 1 && status != 32 || !strings.Contains(said.String(), "interrupted") {
		m.Errorf("%q after %v: exit status %d, %q", cmd.Args, sig, status, &said)
	}
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
