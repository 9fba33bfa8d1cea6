package e2e

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/ptytest"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// testDisk returns the disk that tests may write to. The test needs ublktest.ScratchDisk.
func (b *bed) testDisk() string {
	b.Helper()
	disk, err := filepath.EvalSymlinks(os.Getenv("UBLK_LOOP_DISK")) // the path that ublk-loop shows
	if err != nil {
		b.Fatalf("UBLK_LOOP_DISK: %v", err)
	}
	return disk
}

// keyFile makes a file with a random key of n bytes.
func (b *bed) keyFile(n int) (path string, key []byte) {
	b.Helper()
	key = make([]byte, n)
	_, _ = rand.Read(key)
	path = filepath.Join(b.TempDir(), "key")
	if err := os.WriteFile(path, key, 0o600); err != nil {
		b.Fatal(err)
	}
	return path, key
}

// dm runs a program that makes device-mapper devices, on a machine without udev.
func (b *bed) dm(name string, args ...string) string {
	b.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "DM_DISABLE_UDEV=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

const mapped = "ublk-loop-test"

// mapTable makes a device-mapper device from a table that names a key. The returned
// function removes the device.
func (b *bed) mapTable(table string, key []byte) (path string, remove func()) {
	b.Helper()
	_, rest, _ := strings.Cut(table, ":user:")
	description, _, _ := strings.Cut(rest, " ")
	id, err := unix.AddKey("user", description, key, unix.KEY_SPEC_USER_SESSION_KEYRING)
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if _, err := unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_USER_SESSION_KEYRING, 0, 0); err != nil {
			b.Error(err)
		}
	}()
	b.dm("dmsetup", "create", mapped, "--table", table)
	return "/dev/mapper/" + mapped, func() { b.dm("dmsetup", "remove", "--retry", mapped) }
}

// store writes the beginning of a device, and leaves nothing in the page cache.
func (b *bed) store(path string, data []byte) {
	b.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_EXCL, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Write(data); err != nil {
		b.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
}

func (b *bed) holds(path string, want []byte) {
	b.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		b.Fatalf("%s: %d bytes, not the %d that were written", path, len(got), len(want))
	}
}

func randomBytes(n int) []byte {
	data := make([]byte, n)
	_, _ = rand.Read(data)
	return data
}

// dm-crypt with the table that list prints reads the data that ublk-loop has written, and
// the other way round. The data is an ext4, for each key size and sector size.
func TestKernelTransferIsDMCrypt(t *testing.T) {
	b := kernelBed(t, ublktest.ScratchDisk)
	b.tool("modprobe", "dm_crypt")
	// Each combination of key and sector size has one of these. loop's TestKernelTransfer
	// covers all of them, against another implementation.
	extras := [][]string{nil, {"--iv-large-sectors", "--iv-offset", "4096"}, {"--iv-offset", "8", "--allow-discards"}}
	for i, sectorSize := range []int{512, 1024, 2048, 4096} {
		for j, keyBytes := range []int{32, 64} {
			extra := extras[(i+j)%len(extras)]
			t.Run(fmt.Sprintf("key of %d, sectors of %d %v", keyBytes, sectorSize, extra), func(t *testing.T) {
				b := b.in(t)
				file, key := b.keyFile(keyBytes)
				add := append([]string{
					"--transfer", "aes-xts-plain64", "--key-file", file, "--sector-size", fmt.Sprint(sectorSize),
					"--offset", "1M", "--sizelimit", "12M", b.testDisk(),
				}, extra...)
				dev := b.add(add...)
				table := strings.TrimSpace(b.ok("list", "--dm-table", dev.Device))
				b.del(dev.Device)
				var remove func()
				b.exchange(add, otherWay{
					open: func() string {
						var path string
						path, remove = b.mapTable(table, key)
						return path
					},
					close: func() { remove() },
				})
			})
		}
	}
}

// A device without a transfer is equivalent to dm's linear target.
func TestKernelNoTransferIsDMLinear(t *testing.T) {
	b := kernelBed(t, ublktest.ScratchDisk)
	b.tool("modprobe", "dm_mod")
	const size = 1 << 20
	dev := b.add("--offset", "1M", "--sizelimit", fmt.Sprint(size), b.testDisk())
	table := strings.TrimSpace(b.ok("list", "--dm-table", dev.Device))
	data := randomBytes(size)
	b.store(dev.Device, data)
	b.del(dev.Device)
	b.dm("dmsetup", "create", mapped, "--table", table)
	defer b.dm("dmsetup", "remove", "--retry", mapped)
	b.holds("/dev/mapper/"+mapped, data)
}

// cryptsetup, which makes the table from its own arguments, is also compatible.
func TestKernelTransferIsCryptsetupPlain(t *testing.T) {
	b := kernelBed(t, ublktest.ScratchDisk)
	b.tool("modprobe", "dm_crypt")
	disk := b.testDisk()
	const size = 256 << 10
	const wrapped = "4294967288" // the number of a sector starts again at 0 after 8 sectors
	for name, tt := range map[string]struct{ ours, theirs []string }{
		"512":                {nil, nil},
		"plain":              {[]string{"--transfer", "aes-xts-plain", "--iv-offset", wrapped}, []string{"--cipher", "aes-xts-plain", "--skip", wrapped}},
		"plain64, beyond":    {[]string{"--iv-offset", wrapped}, []string{"--skip", wrapped}},
		"part of a key file": {[]string{"--keyfile-offset", "100", "--keyfile-size", "64"}, []string{"--keyfile-offset", "100", "--keyfile-size", "64"}},
		"skip":               {[]string{"--iv-offset", "24"}, []string{"--skip", "24"}},
		"4096":               {[]string{"--sector-size", "4096"}, []string{"--sector-size", "4096"}},
		"4096 large sectors": {[]string{"--sector-size", "4096", "--iv-large-sectors"}, []string{"--sector-size", "4096", "--iv-large-sectors"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := b.in(t)
			file, _ := b.keyFile(64)
			if slices.Contains(tt.ours, "--keyfile-size") {
				file, _ = b.keyFile(1000)
			}
			ours := append([]string{
				"--transfer", "aes-xts-plain64", "--key-file", file, "--offset", "1M", "--sizelimit", fmt.Sprint(size), disk,
			}, tt.ours...)
			theirs := append([]string{
				"open", "--type", "plain", "--cipher", "aes-xts-plain64", "--key-size", "512", "--key-file", file,
				"--offset", "2048", "--size", fmt.Sprint(size / 512), disk, mapped,
			}, tt.theirs...)
			dev := b.add(ours...)
			data := randomBytes(size)
			b.store(dev.Device, data)
			b.del(dev.Device)
			b.dm("cryptsetup", theirs...)
			b.holds("/dev/mapper/"+mapped, data)
			data = randomBytes(size)
			b.store("/dev/mapper/"+mapped, data)
			b.dm("cryptsetup", "close", mapped)
			dev = b.add(ours...)
			b.holds(dev.Device, data)
			b.del(dev.Device)
		})
	}
}

// writeTree makes files on a disk's file system.
func (b *bed) writeTree(disk, name string) []byte {
	b.Helper()
	data := randomBytes(3<<20 + 17)
	b.mounted(disk, func(dir string) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			b.Fatal(err)
		}
	})
	return data
}

func (b *bed) readTree(disk, name string, want []byte) {
	b.Helper()
	b.tool("e2fsck", "-f", "-n", disk)
	b.mounted(disk, func(dir string) { b.holds(filepath.Join(dir, name), want) })
}

func (b *bed) mounted(disk string, use func(dir string)) {
	b.Helper()
	dir := b.TempDir()
	b.tool("mount", disk, dir)
	defer b.tool("umount", dir)
	use(dir)
}

// otherWay opens a disk with the kernel.
type otherWay struct {
	open  func() (path string)
	close func()
}

// exchange makes and writes a file system through ublk-loop, reads and writes it the
// other way, and reads it through ublk-loop again.
func (b *bed) exchange(add []string, other otherWay) client.Device {
	b.Helper()
	dev := b.add(add...)
	b.tool("mkfs.ext4", "-q", "-F", dev.Device)
	ours := b.writeTree(dev.Device, "ours")
	b.del(dev.Device)
	path := other.open()
	b.readTree(path, "ours", ours)
	theirs := b.writeTree(path, "theirs")
	other.close()
	again := b.add(add...)
	b.readTree(again.Device, "ours", ours)
	b.readTree(again.Device, "theirs", theirs)
	b.del(again.Device)
	return dev
}

// ublk-loop opens a LUKS volume of cryptsetup and writes to it, and cryptsetup reads
// that.
func TestKernelLUKS(t *testing.T) {
	b := kernelBed(t, ublktest.ScratchDisk)
	b.tool("modprobe", "dm_crypt")
	b.tool("modprobe", "loop")
	quick := []string{"--pbkdf-force-iterations", "4", "--pbkdf-memory", "32768"}
	var defaults []string // argon2 takes some seconds of the CPU each time
	if testing.Short() {
		defaults = []string{"--iter-time", "100", "--pbkdf-memory", "65536"}
	}
	for _, tt := range []struct {
		name    string
		format  []string
		version int
		sector  uint32
		disk    bool
	}{
		{"defaults, on a disk", defaults, 2, 0, true},
		{"LUKS2, sectors of 4096", append([]string{"--sector-size", "4096"}, quick...), 2, 4096, false},
		{"LUKS2, sectors of 512, pbkdf2", []string{"--sector-size", "512", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"}, 2, 512, true},
		{"LUKS1", []string{"--type", "luks1", "--key-size", "256", "--pbkdf-force-iterations", "1000"}, 1, 512, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := b.in(t)
			path := b.testDisk()
			if !tt.disk {
				path = b.image(96 << 20)
			}
			file, _ := b.keyFile(48)
			b.dm("cryptsetup", append([]string{"luksFormat", "--batch-mode", "--key-file", file, path}, tt.format...)...)
			dev := b.exchange([]string{"--luks", "--key-file", file, path}, otherWay{
				open: func() string {
					b.dm("cryptsetup", "open", "--key-file", file, path, mapped)
					return "/dev/mapper/" + mapped
				},
				close: func() { b.dm("cryptsetup", "close", mapped) },
			})
			uuid := b.dm("cryptsetup", "luksUUID", path)
			if got := dev.Transfer; got.LUKS != tt.version || got.UUID != uuid || tt.sector != 0 && got.SectorSize != tt.sector {
				t.Errorf("list shows %+v, the volume is %s", got, uuid)
			}
			b.run("add", "--luks", "--key-fd", "0", path).fails(t, 1, path, "descriptor 0", "empty")
			if tt.sector == 0 {
				return // it would take argon2 too long
			}
			b.opensAtOffset(path, file)
			other, _ := b.keyFile(48)
			b.run("add", "--luks", "--key-file", other, path).fails(t, 1, path, "wrong passphrase")
		})
	}
}

// opensAtOffset opens a volume that is at an offset in another file. If the volume has
// two copies of its header, the first copy is overwritten.
func (b *bed) opensAtOffset(path, keyFile string) {
	b.Helper()
	dev := b.add("--luks", "--key-file", keyFile, "--read-only", path)
	want := b.head(dev.Device)
	b.del(dev.Device)
	image, err := os.OpenFile(b.image(int64(dev.Offset+dev.Size)+1<<20), os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = image.Close() }()
	b.tool("dd", "if="+path, "of="+image.Name(), "bs=1M", "seek=1", "conv=sparse,notrunc", fmt.Sprintf("count=%d", (dev.Offset>>20)+8))
	args := []string{"add", "--luks", "--key-file", keyFile, "--read-only", "--offset", "1M", image.Name()}
	r := b.run(args...)
	r.succeeds(b)
	b.holdsHead(strings.TrimSpace(r.out), want)
	if dev.Transfer.LUKS == 1 {
		return
	}
	if _, err := image.WriteAt(make([]byte, 4096), 1<<20); err != nil {
		b.Fatal(err)
	}
	r = b.run(args...)
	if r.status != 0 || !strings.Contains(r.err, "warning: "+image.Name()+": the first LUKS header is damaged") {
		b.Fatalf("with a damaged header: exit status %d, %s", r.status, r.err)
	}
	b.holdsHead(strings.TrimSpace(r.out), want)
}

// head returns the first 4 MiB of a device.
func (b *bed) head(path string) []byte {
	b.Helper()
	data := make([]byte, 4<<20)
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.ReadAt(data, 0); err != nil {
		b.Fatal(err)
	}
	return data
}

func (b *bed) holdsHead(device string, want []byte) {
	b.Helper()
	if !bytes.Equal(b.head(device), want) {
		b.Errorf("%s: other bytes", device)
	}
	b.del(device)
}

// A volume's header can be in another file, for add and for recover.
func TestKernelLUKSDetached(t *testing.T) {
	b := kernelBed(t, ublktest.ScratchDisk)
	b.tool("modprobe", "dm_crypt")
	b.tool("modprobe", "loop")
	for name, format := range map[string][]string{
		"LUKS1": {"--type", "luks1", "--pbkdf-force-iterations", "1000"},
		"LUKS2": {"--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"},
		"plain": {"--type", "luks1", "--cipher", "aes-xts-plain", "--pbkdf-force-iterations", "1000"},
	} {
		t.Run(name, func(t *testing.T) {
			b := b.in(t)
			path, header := b.image(32<<20), filepath.Join(t.TempDir(), "header")
			key, _ := b.keyFile(48)
			b.dm("cryptsetup", append([]string{"luksFormat", "--batch-mode", "--header", header, "--key-file", key, path}, format...)...)
			add := []string{"--luks", "--header", header, "--key-file", key, path}
			dev := b.exchange(add, otherWay{
				open: func() string {
					b.dm("cryptsetup", "open", "--header", header, "--key-file", key, path, mapped)
					return "/dev/mapper/" + mapped
				},
				close: func() { b.dm("cryptsetup", "close", mapped) },
			})
			if dev.Offset != 0 || dev.Size != 32<<20 || dev.Transfer.LUKS == 0 || (dev.Transfer.Name == "aes-xts-plain") != (name == "plain") {
				t.Errorf("it is %+v", dev)
			}
			b.run("add", "--luks", "--key-file", key, path).fails(t, 1, path, "not a LUKS")
			b.run("add", "--luks", "--header", key, "--key-file", key, path).fails(t, 1, path, "not a LUKS")
			dev = b.add(append(add, "--on-crash", "reissue")...)
			b.killServer(dev)
			b.ok("recover", "--header", header, "--key-file", key, dev.Device)
			b.del(dev.Device)
		})
	}
}

// Without a key option, add asks for the passphrase on the terminal.
func TestKernelLUKSPassphrase(t *testing.T) {
	b := kernelBed(t)
	image := b.image(32 << 20)
	b.dm("sh", "-c", `printf %s "pass phrase" | cryptsetup luksFormat --type luks1 --batch-mode --pbkdf-force-iterations 1000 --key-file - "$1"`, "sh", image)
	user, program := ptytest.New(t)
	cmd := b.command("add", "--luks", image)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 3}
	cmd.ExtraFiles = []*os.File{program}
	done := make(chan result)
	go func() { done <- b.runCommand(cmd) }()
	asked := make([]byte, 256)
	n, err := user.Read(asked)
	if want := "Passphrase for " + image + ": "; err != nil || string(asked[:n]) != want {
		t.Errorf("asked %q, error %v, want %q", asked[:n], err, want)
	}
	waitUntil(t, "no echo", func() bool { return ptytest.LocalFlags(t, user)&unix.ECHO == 0 })
	if _, err := user.WriteString("pass phrase\n"); err != nil {
		t.Fatal(err)
	}
	r := <-done
	r.succeeds(t)
	b.del(strings.TrimSpace(r.out))

	// A line of a pipe is a passphrase, too, without its end.
	piped := b.command("add", "--luks", image)
	piped.Stdin = strings.NewReader("pass phrase\nanother line\n")
	r = b.runCommand(piped)
	r.succeeds(t)
	b.del(strings.TrimSpace(r.out))
	piped = b.command("add", "--luks", image)
	piped.Stdin = strings.NewReader("pass phras\n")
	b.runCommand(piped).fails(t, 1, image, "wrong passphrase")

	none := b.command("add", "--luks", image)
	none.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	b.runCommand(none).fails(t, 1, image, "no terminal", "hint: --key-file")
}
