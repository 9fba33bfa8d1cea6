package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A LUKS volume under I/O survives upgrades without its passphrase, and the death of the server
// with it. Its I/O waits until the right passphrase comes, and never fails.
func TestKernelServeKey(t *testing.T) {
	b := kernelBed(t, ublktest.OldestAndNewest)
	log := filepath.Join(t.TempDir(), "log")
	serve := func() *many { return b.serve("--on-crash=reissue", "--log-file", log) }
	m := serve()
	pass, _ := b.keyFile(64)
	wrong, _ := b.keyFile(64)
	image := b.image(24 << 20)
	b.dm("cryptsetup", "luksFormat", "--batch-mode", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", pass, image)
	s := b.add("--luks", "--key-file", pass, "--on-crash=reissue", image)
	p := b.pulse(s)
	goesOn := func() {
		t.Helper()
		was := p.blocks.Load()
		waitUntil(t, "I/O goes on", func() bool { return p.blocks.Load() > was+2 })
		m.serves(s)
	}
	for range 2 {
		b.ok("upgrade")
		goesOn()
	}
	for range 2 {
		m.kill()
		m = serve()
		b.needsKey(m, s)
		b.run("key", "--key-file", wrong, s.Device).fails(t, 1, s.Device, "wrong passphrase")
		b.run("key", s.Device).fails(t, 1, s.Device)
		b.refusesKey(s, randomBytes(64), 400)
		b.refusesKey(s, randomBytes(31), 400)
		b.ok("upgrade") // of a server with a device that waits
		b.needsKey(m, s)
		b.ok("key", "--key-file", pass, s.Device)
		goesOn()
		if left := m.unrecovered(); len(left) != 0 {
			t.Errorf("the server says %+v", left)
		}
		b.refusesKey(s, randomBytes(64), 404) // it waits no longer
		b.ok("upgrade")
		goesOn()
	}
	b.end(p)
	b.del(s.Device)
}

// needsKey checks that a device waits for its key.
func (b *bed) needsKey(m *many, s client.Device) {
	b.Helper()
	left := m.unrecovered()
	if len(left) != 1 || !left[0].NeedsKey || left[0].ID != s.ID || left[0].DiskSequence != s.DiskSequence || left[0].FileInode != s.FileInode {
		b.Errorf("the server says %+v", left)
	}
}

// refusesKey gives the server a key, which it must refuse.
func (b *bed) refusesKey(s client.Device, key []byte, status int) {
	b.Helper()
	path := filepath.Join(b.TempDir(), "key")
	if err := os.WriteFile(path, key, 0o600); err != nil {
		b.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if err := client.New(client.DefaultSocket).GiveKey(b.Context(), &s, f); !client.HasStatus(err, status) {
		b.Errorf("a key of %d bytes: error %v, want status %d", len(key), err, status)
	}
}

// A device that waits for its key can be removed. Its I/O fails.
func TestKernelServeKeyNeverComes(t *testing.T) {
	b := kernelBed(t, ublktest.OldestAndNewest)
	m := b.serve()
	key, _ := b.keyFile(64)
	s := b.add("--transfer=aes-xts-plain64", "--key-file", key, "--on-crash=reissue", b.image(1<<20))
	p := b.pulse(s)
	m.kill()
	m = b.serve()
	b.needsKey(m, s)
	server := client.New(client.DefaultSocket)
	if err := server.Remove(b.Context(), &s, false); !client.HasStatus(err, 404) {
		t.Errorf("without force: %v", err)
	}
	if err := server.Remove(b.Context(), &s, true); err != nil {
		t.Error(err)
	}
	if err := <-p.ended; err == nil {
		t.Error("I/O of a removed device succeeds")
	}
	if list := b.list(); len(list) != 0 {
		t.Errorf("left: %+v", list)
	}
}

// After an upgrade and a restart, the key is in no file below /run, in no argument, variable or
// log, and in memory only where it is locked and kept out of dumps.
func TestKernelServeKeyStaysSecret(t *testing.T) {
	b := kernelBed(t, ublktest.Plain) // the memory of the race detector is too much to search
	log := filepath.Join(t.TempDir(), "log")
	m := b.serve("--log-file", log)
	file, key := b.keyFile(64)
	s := b.add("--transfer=aes-xts-plain64", "--key-file", file, "--on-crash=reissue", b.image(1<<20))
	b.ok("upgrade")
	b.keyIsOnlyInLockedMemory(t, m.pid(), key, log)
	m.kill()
	m = b.serve("--log-file", log)
	b.ok("key", "--key-file", file, s.Device)
	b.keyIsOnlyInLockedMemory(t, m.pid(), key, log)
	b.ok("upgrade")
	b.keyIsOnlyInLockedMemory(t, m.pid(), key, log)
	b.del(s.Device)
	for _, pid := range m.processes() {
		for _, r := range memoryOf(t, pid) {
			if bytes.Contains(r.content, key[:32]) || bytes.Contains(r.content, key[32:]) {
				t.Errorf("after the end of the device the key is in %s of process %d", r.name, pid)
			}
		}
	}
}

func (b *bed) keyIsOnlyInLockedMemory(t *testing.T, pid int, key []byte, log string) {
	b.Helper()
	places := []string{log, fmt.Sprintf("/proc/%d/cmdline", pid), fmt.Sprintf("/proc/%d/environ", pid)}
	for _, pattern := range []string{"/run/ublk-loop/*", "/run/ublk-loop/*/*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			b.Fatal(err)
		}
		places = append(places, found...)
	}
	for _, path := range places {
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		content, err := os.ReadFile(path)
		if err != nil {
			b.Fatal(err)
		}
		for _, half := range [][]byte{key[:32], key[32:]} {
			if bytes.Contains(content, half) || strings.Contains(string(content), fmt.Sprintf("%x", half)) {
				b.Errorf("the key is in %s", path)
			}
		}
	}
	b.keyIsLocked(t, pid, key)
}

// keyIsLocked checks that the key is in the memory of a process, and only in pages that are
// locked and not in dumps.
func (b *bed) keyIsLocked(t *testing.T, pid int, key []byte) {
	b.Helper()
	copies := 0
	for _, r := range memoryOf(t, pid) {
		for _, half := range [][]byte{key[:32], key[32:]} {
			n := bytes.Count(r.content, half)
			copies += n
			if n > 0 && !(r.flags["lo"] && r.flags["dd"]) {
				b.Errorf("the key is in %s, which is not locked or in dumps: %v", r.name, r.flags)
			}
		}
	}
	if copies == 0 {
		b.Error("the key is nowhere: the test does not see the server's memory")
	}
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		b.Fatal(err)
	}
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && strings.Contains(to, "task") {
			b.Errorf("the server has %s open", to)
		}
	}
}
