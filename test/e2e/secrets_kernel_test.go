package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// The key is in no place where other users can read it. In the server's memory it is only
// in pages that are locked and excluded from dumps.
func TestKernelKeyStaysSecret(t *testing.T) {
	b := kernelBed(t)
	file, key := b.keyFile(64)
	log := filepath.Join(t.TempDir(), "log")
	image := b.image(8 << 20)
	dev := b.add("--transfer", "aes-xts-plain64", "--key-file", file, "--log-file", log, image)
	b.store(dev.Device, randomBytes(1<<20))
	halves := [][]byte{key[:32], key[32:]}
	places := map[string]string{"list": b.ok("list", "--json") + b.ok("list", "--dm-table")}
	paths := []string{log, fmt.Sprintf("/run/ublk-loop/%d.json", dev.ID)}
	for _, pid := range b.processes(dev) {
		paths = append(paths, fmt.Sprintf("/proc/%d/cmdline", pid), fmt.Sprintf("/proc/%d/environ", pid))
	}
	for _, path := range paths {
		places[path] = b.readFile(path)
	}
	for place, content := range places {
		for _, half := range halves {
			if strings.Contains(content, string(half)) || strings.Contains(content, fmt.Sprintf("%x", half)) {
				t.Errorf("the key is in %s", place)
			}
		}
	}
	// A process with the server's capabilities can read the memory of a server without a
	// key.
	plain := b.add(b.image(1 << 20))
	defer b.del(plain.Device)
	b.tool("setpriv", look(plain.PID)...)
	for _, pid := range b.processes(dev) {
		b.keepsKey(pid, halves)
	}
	b.del(dev.Device)
}

// A signal that arrives while a process encrypts leaves no key on a stack: the kernel writes the registers there.
func TestKernelKeyAndSignals(t *testing.T) {
	b := kernelBed(t, ublktest.Plain) // the memory of the race detector is too much to search
	for name, processes := range map[string]int{"--partscan": 1, "--partscan=false": 2} {
		t.Run(name, func(t *testing.T) {
			b := b.in(t)
			file, key := b.keyFile(64)
			dev := b.add(name, "--transfer", "aes-xts-plain64", "--key-file", file, b.image(8<<20))
			pids := b.processes(dev)
			if len(pids) != processes {
				t.Fatalf("%d processes serve, want %d", len(pids), processes)
			}
			data := randomBytes(8 << 20)
			stop, written := make(chan struct{}), make(chan error)
			go func() { written <- writeAgain(dev.Device, data, stop) }() // received below
			for range 20 {
				interrupt(b, pids)
				for _, pid := range pids {
					b.keepsKey(pid, [][]byte{key[:32], key[32:]})
				}
			}
			close(stop)
			if err := <-written; err != nil {
				t.Error(err)
			}
			b.del(dev.Device)
		})
	}
}

// writeAgain writes the same to a device, past the page cache, until stop is closed.
func writeAgain(device string, data []byte, stop chan struct{}) error {
	f, err := os.OpenFile(device, os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		if _, err := f.WriteAt(data, 0); err != nil {
			return err
		}
	}
}

// interrupt sends the signal with which Go's runtime preempts to all threads of processes, some hundred
// times.
func interrupt(b *bed, pids []int) {
	b.Helper()
	for _, pid := range pids {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		if err != nil || len(threads) == 0 {
			b.Fatalf("threads of %d: %v, %v", pid, threads, err)
		}
		for range 100 {
			for _, thread := range threads {
				tid, err := strconv.Atoi(filepath.Base(thread))
				if err != nil {
					b.Fatal(err)
				}
				if err := unix.Tgkill(pid, tid, unix.SIGURG); err != nil && err != unix.ESRCH { // threads may end
					b.Fatal(err)
				}
			}
		}
	}
}

// look returns the arguments of setpriv(1) for a look at a process's memory.
func look(pid int) []string {
	return []string{"--bounding-set", "-sys_ptrace", "head", "-c0", fmt.Sprintf("/proc/%d/mem", pid)}
}

// keepsKey checks that a process with a key has it only where nobody else can read it.
func (b *bed) keepsKey(pid int, halves [][]byte) {
	b.Helper()
	if limits := b.readFile(fmt.Sprintf("/proc/%d/limits", pid)); !strings.Contains(limits, "Max core file size        0                    0") {
		b.Errorf("process %d may dump its core:\n%s", pid, limits)
	}
	if out, err := exec.Command("setpriv", look(pid)...).CombinedOutput(); err == nil {
		b.Errorf("another process may look into process %d: %s", pid, out)
	}
	copies := 0
	for _, m := range memoryOf(b, pid) {
		for _, half := range halves {
			n := bytes.Count(m.content, half)
			copies += n
			if n > 0 && !(m.flags["lo"] && m.flags["dd"]) {
				b.Errorf("the key is in %s of process %d, which is not locked or in dumps: %v", m.name, pid, m.flags)
			}
		}
	}
	if copies == 0 {
		b.Errorf("the key is nowhere in process %d: the test does not see its memory", pid)
	}
}

// region is a mapping of a process.
type region struct {
	name    string
	flags   map[string]bool // VmFlags of proc_pid_smaps(5)
	content []byte
}

// memoryOf returns the writable mappings of a process.
func memoryOf(t testing.TB, pid int) []region {
	t.Helper()
	smaps, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem := openMemory(t, pid)
	var regions []region
	for line := range strings.Lines(string(smaps)) {
		fields := strings.Fields(line)
		if low, high, isRange := addressRange(fields[0]); isRange {
			regions = append(regions, region{name: strings.TrimSpace(line)})
			if strings.HasPrefix(fields[1], "rw") && high-low <= 1<<30 {
				regions[len(regions)-1].content = readRange(mem, low, high)
			}
		}
		if fields[0] == "VmFlags:" {
			flags := map[string]bool{}
			for _, flag := range fields[1:] {
				flags[flag] = true
			}
			regions[len(regions)-1].flags = flags
		}
	}
	return regions
}

func openMemory(t testing.TB, pid int) *os.File {
	t.Helper()
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mem.Close() })
	return mem
}

func addressRange(text string) (low, high int64, ok bool) {
	first, last, found := strings.Cut(text, "-")
	low, lowErr := strconv.ParseInt(first, 16, 64)
	high, highErr := strconv.ParseInt(last, 16, 64)
	return low, high, found && lowErr == nil && highErr == nil
}

// readRange returns the content of a range, which may have holes.
func readRange(mem *os.File, low, high int64) []byte {
	content := make([]byte, high-low)
	page := int64(os.Getpagesize())
	if _, err := mem.ReadAt(content, low); err == nil {
		return content
	}
	for at := low; at < high; at += page {
		_, _ = mem.ReadAt(content[at-low:at-low+page], at)
	}
	return content
}

// Each place of a key works, not only a file.
func TestKernelKeyPlaces(t *testing.T) {
	b := kernelBed(t)
	file, key := b.keyFile(64)
	image := b.image(8 << 20)
	data := randomBytes(8 << 20)
	transfer := []string{"add", "--json", "--transfer", "aes-xts-plain64", image}
	dev := b.add("--transfer", "aes-xts-plain64", "--key-file", file, image)
	b.store(dev.Device, data)
	b.del(dev.Device)
	check := func(what string, r result) {
		t.Helper()
		r.succeeds(t)
		var d struct{ Device string }
		b.decode(r.out, &d)
		t.Log(what)
		b.holds(d.Device, data)
		b.del(d.Device)
	}

	stdin := b.command(append(transfer, "--key-file", "-")...)
	stdin.Stdin = bytes.NewReader(key)
	check("standard input", b.runCommand(stdin))

	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	fd := b.command(append(transfer, "--key-fd", "3")...)
	fd.ExtraFiles = []*os.File{f}
	check("a descriptor", b.runCommand(fd))

	b.run(append(transfer, "--key-description", "ublk-loop:test")...).fails(t, 1, image, "key ublk-loop:test", "not available")
	id, err := unix.AddKey("user", "ublk-loop:test", key, unix.KEY_SPEC_USER_SESSION_KEYRING)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_USER_SESSION_KEYRING, 0, 0) }()
	check("the keyring", b.run(append(transfer, "--key-description", "ublk-loop:test")...))
}

// An impossible transfer attaches nothing, and its error says why.
func TestKernelTransferRefuses(t *testing.T) {
	b := kernelBed(t)
	image := b.image(8 << 20)
	short, _ := b.keyFile(31)
	equal := filepath.Join(t.TempDir(), "equal")
	if err := os.WriteFile(equal, make([]byte, 64), 0o600); err != nil {
		t.Fatal(err)
	}
	good, _ := b.keyFile(64)
	odd := b.image(4<<20 + 512)
	for _, tt := range []struct {
		args  []string
		texts []string
	}{
		{[]string{"--key-file", short, image}, []string{image, "31 bytes", "32 nor 64"}},
		{[]string{"--key-file", equal, image}, []string{image, "halves are equal"}},
		{[]string{"--key-file", good, "--zero-copy=on", image}, []string{image, "zero copy", "hint: --zero-copy"}},
		{[]string{"--key-file", good, "--sector-size", "4096", "--offset", "512", image}, []string{image, "offset 512", "4096"}},
		{[]string{"--key-file", good, "--sector-size", "4096", "--sizelimit", "512", image}, []string{image, "limit 512", "4096"}},
		{[]string{"--key-file", good, "--sector-size", "4096", odd}, []string{odd, "not a multiple", "hint: --sizelimit"}},
		{[]string{"--key-file", good, "--sector-size", "4096", "--iv-offset", "7", image}, []string{image, "iv offset 7"}},
	} {
		b.run(append([]string{"add", "--transfer", "aes-xts-plain64"}, tt.args...)...).fails(t, 1, tt.texts...)
	}
}

// After the end of a server its device needs the key again.
func TestKernelForegroundTransfer(t *testing.T) {
	b := kernelBed(t)
	file, _ := b.keyFile(64)
	image := b.image(8 << 20)
	data := randomBytes(8 << 20)
	add := []string{"--transfer", "aes-xts-plain64", "--key-file", file, image}
	dev := b.add(add...)
	b.store(dev.Device, data)
	b.del(dev.Device)
	cmd := b.command(append([]string{"add", "--foreground"}, add...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var path string
	if _, err := fmt.Fscanln(out, &path); err != nil {
		t.Fatal(err)
	}
	b.holds(path, data)
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
