package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// mounts runs mount(8) and umount(8), which find the helper by its name.
type mounts struct {
	*bed
	fstab string
}

// mountBed returns a bed with the helper installed.
func mountBed(t *testing.T) *mounts {
	b := kernelBed(t)
	const link = "/sbin/mount.ublk-loop"
	if err := os.Symlink(b.bin, link); err != nil {
		t.Skipf("cannot be installed: %v", err)
	}
	t.Cleanup(func() { _ = os.Remove(link) })
	return &mounts{b, filepath.Join(t.TempDir(), "fstab")}
}

// mount runs mount(8) with arguments.
func (m *mounts) mount(args ...string) result {
	m.Helper()
	return m.runCommand(exec.Command("mount", args...))
}

// image makes a file system that begins at an offset of its image. The file system has a
// file called name.
func (m *mounts) fileSystem(offset int64, name string) string {
	m.Helper()
	image, content := m.bed.image(offset+16<<20), m.TempDir()
	m.write(filepath.Join(content, name), "", 0o644)
	m.tool("mkfs.ext4", "-q", "-F", "-d", content, "-E", fmt.Sprintf("offset=%d", offset), image, "16M")
	return image
}

// has reports whether a directory has a file.
func (m *mounts) has(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

// refuses checks that mount(8) fails with a status, and with texts among the errors.
func (m *mounts) refuses(status int, args []string, texts ...string) {
	m.Helper()
	r := m.mount(args...)
	if r.status != status {
		m.Errorf("mount %q: exit status %d, want %d: %s", args, r.status, status, r.err)
	}
	for _, text := range texts {
		if !strings.Contains(r.err, text) {
			m.Errorf("mount %q: %q lacks %q", args, r.err, text)
		}
	}
}

// mount(8) finds the helper by its name, and umount(8) alone makes the device go.
func TestKernelMountHelper(t *testing.T) {
	m := mountBed(t)
	image, dir := m.fileSystem(0, "file"), t.TempDir()
	m.refuses(32, []string{"-t", "ublk-loop", image, dir}, "mount.ublk-loop: "+image+": ", "no server", "\nhint: start")
	m.serve()
	for _, options := range []string{"rw,noatime", "ro"} {
		m.mount("-t", "ublk-loop", "-o", options, image, dir).succeeds(t)
		s := m.list()[0]
		if s.File != image || !s.Autoclear || s.ReadOnly != (options == "ro") {
			t.Errorf("mount -o %s makes %+v", options, s)
		}
		err := os.WriteFile(filepath.Join(dir, "file"), []byte(options), 0o600)
		if (err == nil) != (options != "ro") {
			t.Errorf("mount -o %s: write: %v", options, err)
		}
		if options != "ro" {
			m.remounts(image, dir)
		}
		m.tool("umount", dir)
		m.isGone(s)
	}
	// If the image has no file system, no device is left.
	m.refuses(32, []string{"-t", "ublk-loop", m.bed.image(1 << 20), dir}, "/dev/ublkb0")
	waitUntil(t, "nothing is left", func() bool { return len(m.list()) == 0 })
}

// remounts checks that a remount uses the existing device.
func (m *mounts) remounts(image, dir string) {
	m.Helper()
	for _, how := range []string{"ro", "rw"} {
		m.mount("-t", "ublk-loop", "-o", "remount,"+how, image, dir).succeeds(m)
		err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600)
		if (err == nil) != (how == "rw") {
			m.Errorf("remounted %s: write: %v", how, err)
		}
		if n := len(m.list()); n != 1 {
			m.Errorf("%d devices after a remount", n)
		}
	}
}

// The options of the device reach it. Those on which mount(8) acts itself are refused, with
// a hint at ours, and leave no loop device.
func TestKernelMountOptions(t *testing.T) {
	m := mountBed(t)
	m.serve()
	image, dir := m.fileSystem(1<<20, "deep"), t.TempDir()
	m.mount("-t", "ublk-loop", "-o", "ublk.offset=1M,ublk.sizelimit=16M,ublk.sector-size=1024,ublk.direct-io=off,ublk.fstype=ext4,ublk.ref=me,noexec", image, dir).succeeds(t)
	s := m.list()[0]
	if s.Offset != 1<<20 || s.SizeLimit != 16<<20 || s.Limits.LogicalBlockSize != 1024 || s.DirectIO || s.Ref != "me" || !m.has(dir, "deep") {
		t.Errorf("it is %+v", s)
	}
	if line := m.tool("findmnt", "-n", "-o", "OPTIONS", dir); !strings.Contains(line, "noexec") || strings.Contains(line, "ublk") {
		t.Errorf("it is mounted with %q", line)
	}
	m.tool("umount", dir)
	m.isGone(s)
	if exec.Command("modprobe", "loop").Run() == nil {
		for _, options := range []string{"offset=1048576", "loop", "sizelimit=16777216"} {
			m.refuses(1, []string{"-t", "ublk-loop", "-o", options, image, dir}, "/dev/loop", "mount(8) has made a loop device", "hint: ", "ublk.offset")
		}
		waitUntil(t, "no loop device is left", func() bool { return m.tool("losetup", "-a") == "" })
	}
	for options, text := range map[string]string{
		"ublk.offset=x": "option ublk.offset=x: not a number", "ublk.nonsense": "option ublk.nonsense: unknown", "ublk.offset": "its value is missing", "ublk.luks=1": "it has no value",
		"ublk.sector-size=3": "not 512", "ublk.direct-io=maybe": "not auto", "ublk.transfer=rot13": "no such transfer", "ublk.transfer=xor": "needs ublk.key-file", "ublk.key-file=/x": "needs ublk.luks",
	} {
		m.refuses(1, []string{"-t", "ublk-loop", "-o", options, image, dir}, "mount.ublk-loop: ", text)
	}
	ragged := m.bed.image(1<<20 + 100)
	m.refuses(32, []string{"-t", "ublk-loop", ragged, dir}, ragged, "hint: ", "with -o ublk.sizelimit=1048576")
	m.refuses(32, []string{"-t", "ublk-loop", "-o", "ublk.offset=100", image, dir}, "hint: attach it with -o ro")
}

// An image that cannot be written to is mounted read-only, and mount says so, also if another
// directory has it already.
func TestKernelMountReadOnlyMedium(t *testing.T) {
	m := mountBed(t)
	m.serve()
	medium, dir := t.TempDir(), t.TempDir()
	m.tool("mount", "-t", "tmpfs", "tmpfs", medium)
	t.Cleanup(func() { m.tool("umount", medium) })
	image := filepath.Join(medium, "image")
	m.tool("cp", m.fileSystem(0, "file"), image)
	m.tool("mount", "-o", "remount,ro", medium)
	second := t.TempDir()
	m.mountsReadOnly(image, dir)
	m.mountsReadOnly(image, second)
	list := m.list()
	if len(list) != 1 || !list[0].ReadOnly {
		t.Errorf("it is mounted from %+v", list)
	}
	m.tool("umount", dir, second)
	m.isGone(list[0])
}

// mountsReadOnly checks that mount(8) mounts an image read-only, and says so.
func (m *mounts) mountsReadOnly(image, dir string) {
	m.Helper()
	r := m.mount("-t", "ublk-loop", "-o", "rw", image, dir)
	if r.status != 0 || r.err != "mount.ublk-loop: "+image+": write-protected, mounted read-only\n" {
		m.Errorf("exit status %d, %q", r.status, r.err)
	}
	if line := m.tool("findmnt", "-n", "-o", "OPTIONS", dir); !strings.HasPrefix(line, "ro") {
		m.Errorf("mounted with %q", line)
	}
}

// A second mount of an image uses its device, also one of add. The device goes after the
// last umount. umount(8) does not find the mounts by the image.
func TestKernelMountTwice(t *testing.T) {
	m := mountBed(t)
	m.serve()
	image, first, second := m.fileSystem(0, "file"), t.TempDir(), t.TempDir()
	m.mount("-t", "ublk-loop", image, first).succeeds(t)
	m.mount("-t", "ublk-loop", image, second).succeeds(t)
	list := m.list()
	if len(list) != 1 || !m.has(second, "file") {
		t.Errorf("%d devices", len(list))
	}
	m.mount("-t", "ublk-loop", image, second).succeeds(t)
	if n := strings.Count(m.tool("cat", "/proc/mounts"), list[0].Device+" "); n != 2 {
		t.Errorf("%d mounts of two directories", n)
	}
	m.refuses(32, []string{"-t", "ublk-loop", "-o", "ublk.offset=1M", image, t.TempDir()}, list[0].Device+" has a part of it that overlaps")
	if out, err := exec.Command("umount", image).CombinedOutput(); err == nil {
		t.Errorf("umount %s succeeds: %s", image, out)
	}
	m.tool("umount", first)
	if !m.has(second, "file") || len(m.list()) != 1 {
		t.Errorf("after the first umount: %+v", m.list())
	}
	m.tool("umount", second)
	m.isGone(list[0])

	s := m.add("--standalone", "--read-only", image)
	m.mountsReadOnly(image, first)
	m.tool("umount", first)
	m.mount("-t", "ublk-loop", "-o", "ro", image, first).succeeds(t)
	if len(m.list()) != 1 || !m.has(first, "file") {
		t.Errorf("beside a device of add: %+v", m.list())
	}
	m.tool("umount", first)
	m.del(s.Device)
}

// Mounts of one image at the same time, as systemd starts them, use one device.
func TestKernelMountAtOnce(t *testing.T) {
	m := mountBed(t)
	m.serve()
	image, dirs := m.fileSystem(0, "file"), []string{t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir()}
	results := make([]result, 2*len(dirs)) // each directory twice
	var mounts sync.WaitGroup
	for i := range results {
		mounts.Go(func() { results[i] = m.mount("-t", "ublk-loop", image, dirs[i/2]) })
	}
	mounts.Wait()
	for _, r := range results {
		if r.status != 0 || r.err != "" {
			t.Errorf("exit status %d, %q", r.status, r.err)
		}
	}
	list := m.list()
	if n := strings.Count(m.tool("cat", "/proc/mounts"), "/dev/ublkb"); n != len(dirs) || len(list) != 1 {
		t.Errorf("%d mounts of %d directories from %d devices", n, len(dirs), len(list))
	}
	m.tool("umount", dirs...)
	m.isGone(list[0])
}

// Entries of fstab: mount -a mounts once, an image that is missing matters unless nofail is
// given, and the options of mount(8) itself do no harm.
func TestKernelMountFstab(t *testing.T) {
	m := mountBed(t)
	m.serve()
	image, deep, dir, deepDir := m.fileSystem(0, "file"), m.fileSystem(1<<20, "deep"), t.TempDir(), filepath.Join(t.TempDir(), "a b")
	if err := os.Mkdir(deepDir, 0o700); err != nil {
		t.Fatal(err)
	}
	entries := fmt.Sprintf("%s %s ublk-loop defaults,nofail,_netdev 0 0\n%s %s ublk-loop ro,ublk.offset=1M,x-systemd.requires=ublk-loop.service 0 0\n%s/gone %s ublk-loop nofail 0 0\n",
		image, dir, deep, strings.ReplaceAll(deepDir, " ", `\040`), t.TempDir(), t.TempDir())
	m.write(m.fstab, entries, 0o600)
	for round := range 3 {
		m.mount("-a", "-T", m.fstab).succeeds(t)
		if n := strings.Count(m.tool("cat", "/proc/mounts"), "/dev/ublkb"); n != 2 || len(m.list()) != 2 || !m.has(dir, "file") || !m.has(deepDir, "deep") {
			t.Errorf("mount -a, round %d: %d mounts of %+v", round, n, m.list())
		}
	}
	if r := m.mount("-a", "-v", "-T", m.fstab); r.status != 0 || !strings.Contains(r.err, image+": already mounted at "+dir) {
		t.Errorf("mount -av: %d, %q", r.status, r.err)
	}
	m.tool("umount", deepDir)
	m.mount("-T", m.fstab, deepDir).succeeds(t)
	m.tool("umount", dir, deepDir)
	waitUntil(t, "nothing is left", func() bool { return len(m.list()) == 0 })
	m.write(m.fstab, strings.ReplaceAll(entries, "nofail", "defaults"), 0o600)
	r := m.mount("-a", "-T", m.fstab)
	if r.status == 0 || !strings.Contains(r.err, "/gone: no such file or directory") {
		t.Errorf("with a missing image: exit status %d, %q", r.status, r.err)
	}
	m.tool("umount", dir, deepDir)
	waitUntil(t, "nothing is left", func() bool { return len(m.list()) == 0 })
}

// A mount from fstab can be remounted by its directory, also with mount -N. mount(8) reads the
// options of the device in fstab then, and passes them to the helper.
func TestKernelMountRemountFstab(t *testing.T) {
	m := mountBed(t)
	m.serve()
	image, dir, etc := m.fileSystem(1<<20, "deep"), t.TempDir(), t.TempDir()
	m.write(filepath.Join(etc, "fstab"), fmt.Sprintf("%s %s ublk-loop noatime,ublk.offset=1M 0 0\n", image, dir), 0o600)
	const script = `mount --bind "$1" /etc && mount "$2" || exit
for how in '-o remount,ro' '-o remount,rw' "-N $$ -o remount,ro" '-o remount,rw'; do
	mount $how "$2" || exit
	findmnt -n -o OPTIONS "$2"
done`
	out := m.tool("unshare", "--mount", "sh", "-c", script, "sh", etc, dir)
	if out != "ro,noatime\nrw,noatime\nro,noatime\nrw,noatime\n" {
		t.Errorf("the options are %q", out)
	}
	waitUntil(t, "nothing is left", func() bool { return len(m.list()) == 0 })
}

// An image can be mounted again right after it was unmounted, while the server is about to
// remove its device. Before Linux 7.0 the device may go while mount(8) mounts it.
func TestKernelMountAgain(t *testing.T) {
	m := mountBed(t)
	ublktest.Require(t, ublktest.OldestAndNewest)
	m.serve()
	image, dir := m.fileSystem(0, "file"), t.TempDir()
	for round := range 40 {
		if r := m.mount("-t", "ublk-loop", image, dir); r.status != 0 || r.err != "" {
			t.Fatalf("round %d: exit status %d, %q", round, r.status, r.err)
		}
		m.tool("umount", dir)
	}
	waitUntil(t, "nothing is left", func() bool { return len(m.list()) == 0 })
}

// A mount at the same directory does nothing. If it asks for another access, it says so.
func TestKernelMountOtherAccess(t *testing.T) {
	m := mountBed(t)
	m.serve()
	image, dir := m.fileSystem(0, "file"), t.TempDir()
	for _, tt := range []struct{ options, again, note string }{
		{"rw", "rw", ""},
		{"rw", "ro", "already mounted at " + dir + ", and not read-only: -o remount,ro changes that\n"},
		{"ro", "ro", ""},
		{"ro", "rw", "already mounted at " + dir + ", read-only\n"},
	} {
		m.mount("-t", "ublk-loop", "-o", tt.options, image, dir).succeeds(t)
		r := m.mount("-t", "ublk-loop", "-o", tt.again, image, dir)
		want := tt.note
		if want != "" {
			want = "mount.ublk-loop: " + image + ": " + want
		}
		if r.status != 0 || r.err != want {
			t.Errorf("%s after %s: exit status %d, %q, want %q", tt.again, tt.options, r.status, r.err, want)
		}
		d := m.list()[0]
		m.tool("umount", dir)
		m.isGone(d)
	}
}

// The helper warns of a loop device that has the image, also if a device has it already.
func TestKernelMountBesideLoopDevice(t *testing.T) {
	m := mountBed(t)
	m.serve()
	image, dir, other := m.fileSystem(0, "file"), t.TempDir(), t.TempDir()
	if err := exec.Command("modprobe", "loop").Run(); err != nil {
		t.Skipf("no loop devices: %v", err)
	}
	device := strings.TrimSpace(m.tool("losetup", "-f", "--show", "-r", image))
	t.Cleanup(func() { _ = exec.Command("losetup", "-d", device).Run() })
	warning := "mount.ublk-loop: " + image + ": warning: the loop device " + device + " has the file, too: what one of them writes can damage the data of the other\n"
	for _, tt := range []struct{ options, dir, want string }{
		{"ro", dir, ""},
		{"ro", other, ""},
		{"rw", dir, warning},
		{"rw", other, warning},
		{"rw,ublk.shared", t.TempDir(), ""},
	} {
		if r := m.mount("-t", "ublk-loop", "-o", tt.options, image, tt.dir); r.status != 0 || r.err != tt.want {
			t.Errorf("-o %s: exit status %d, %q, want %q", tt.options, r.status, r.err, tt.want)
		}
		if tt.options == "ro" && tt.dir == other || strings.HasSuffix(tt.options, "shared") {
			m.unmountAll(image)
		}
	}
}

// unmountAll unmounts the only device of an image everywhere, and waits for its end.
func (m *mounts) unmountAll(image string) {
	m.Helper()
	d := m.list()[0]
	if d.File != image {
		m.Fatalf("the device is %+v", d)
	}
	m.tool("umount", "-A", d.Device)
	m.isGone(d)
}

// fstab can name the key of a LUKS volume, and the second mount needs none.
func TestKernelMountLUKS(t *testing.T) {
	m := mountBed(t)
	m.serve()
	image, dir, other := m.bed.image(40<<20), t.TempDir(), t.TempDir()
	key, _ := m.keyFile(48)
	wrong, _ := m.keyFile(48)
	m.dm("cryptsetup", "luksFormat", "--batch-mode", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", key, image)
	device := strings.TrimSpace(m.ok("add", "--luks", "--key-file", key, image))
	m.tool("mkfs.ext4", "-q", device)
	m.del(device)
	m.write(m.fstab, fmt.Sprintf("%s %s ublk-loop ublk.luks,ublk.key-file=%s 0 0\n", image, dir, key), 0o600)
	m.mount("-a", "-T", m.fstab).succeeds(t)
	s := m.list()[0]
	if s.Transfer.LUKS != 2 || !m.has(dir, "lost+found") {
		t.Errorf("it is %+v", s)
	}
	m.mount("-t", "ublk-loop", "-o", "ublk.luks", image, other).succeeds(t)
	m.tool("umount", other, dir)
	m.isGone(s)
	m.refuses(32, []string{"-t", "ublk-loop", "-o", "ublk.luks,ublk.key-file=" + wrong, image, dir}, "mount.ublk-loop: "+image, "wrong passphrase")
	m.refuses(32, []string{"-t", "ublk-loop", "-o", "ublk.luks,ublk.key-file=/nonexistent", image, dir}, "/nonexistent")
}

// The key of a volume that cannot be written to is read only once: a pipe has it only once, and the
// user of a terminal is asked once.
func TestKernelMountLUKSReadOnly(t *testing.T) {
	m := mountBed(t)
	m.serve()
	image, dir := m.bed.image(40<<20), t.TempDir()
	key := filepath.Join(t.TempDir(), "key")
	m.write(key, "passphrase", 0o600)
	m.dm("cryptsetup", "luksFormat", "--batch-mode", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", key, image)
	device := strings.TrimSpace(m.ok("add", "--luks", "--key-file", key, image))
	m.tool("mkfs.ext4", "-q", device)
	m.del(device)
	medium := m.mountTmpfs("size=64M")
	copied := filepath.Join(medium, "image")
	m.tool("cp", image, copied)
	m.tool("mount", "-o", "remount,ro", medium)
	cmd := exec.Command("mount", "-t", "ublk-loop", "-o", "ublk.luks", copied, dir)
	cmd.Stdin = strings.NewReader("passphrase\n")
	r := m.runCommand(cmd)
	if r.status != 0 || r.err != "mount.ublk-loop: "+copied+": write-protected, mounted read-only\n" || !m.has(dir, "lost+found") {
		t.Errorf("exit status %d, %q", r.status, r.err)
	}
	s := m.list()[0]
	m.tool("umount", dir)
	m.isGone(s)
}

// mount -N mounts in another namespace of mounts.
func TestKernelMountNamespace(t *testing.T) {
	m := mountBed(t)
	m.serve()
	image, dir := m.fileSystem(0, "file"), t.TempDir()
	other := exec.Command("unshare", "--mount", "sh", "-c", "echo; exec cat")
	in, err := other.StdinPipe()
	out, outErr := other.StdoutPipe()
	if err := errors.Join(err, outErr, other.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = other.Wait() })
	if _, err := out.Read(make([]byte, 1)); err != nil { // it has its namespace
		t.Fatal(err)
	}
	m.mount("-N", fmt.Sprint(other.Process.Pid), "-t", "ublk-loop", image, dir).succeeds(t)
	mounted := m.tool("cat", fmt.Sprintf("/proc/%d/mounts", other.Process.Pid))
	s := m.list()[0]
	if !strings.Contains(mounted, s.Device+" "+dir+" ext4") || m.has(dir, "file") {
		t.Errorf("mounted there is\n%s", mounted)
	}
	if err := errors.Join(in.Close(), other.Wait()); err != nil {
		t.Error(err)
	}
	m.isGone(s)
}

// mount(8) executes the helper of another user without privileges, so that the option user
// has no effect.
func TestKernelMountByUser(t *testing.T) {
	m := mountBed(t)
	m.serve()
	image, dir, etc := m.fileSystem(0, "file"), t.TempDir(), t.TempDir()
	m.write(filepath.Join(etc, "passwd"), "root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n", 0o644)
	m.write(filepath.Join(etc, "fstab"), fmt.Sprintf("%s %s ublk-loop user,noauto 0 0\n", image, dir), 0o644)
	m.tool("cp", "/bin/mount", etc+"/mount")
	m.tool("chmod", "4755", etc+"/mount")
	m.tool("chmod", "755", etc, dir, filepath.Dir(etc), filepath.Dir(dir))
	r := m.runCommand(exec.Command("unshare", "--mount", "sh", "-c", `mount --bind "$1" /etc && exec setpriv --reuid 65534 --regid 65534 --clear-groups /etc/mount "$2"`, "sh", etc, dir))
	if r.status != 1 || !strings.Contains(r.err, "mount.ublk-loop: "+dir+": only root can mount an image") || !strings.Contains(r.err, "hint: the options user and users") {
		t.Errorf("exit status %d, %q", r.status, r.err)
	}
}

// An interrupt during mount(8) does not make the exit status wrong. Here it comes when the
// image is mounted and mount(8) has not ended.
func TestKernelMountHelperInterrupted(t *testing.T) {
	b := kernelBed(t)
	dir := t.TempDir()
	helper, script, target := filepath.Join(dir, "mount.ublk-loop"), filepath.Join(dir, "script"), filepath.Join(dir, "target")
	if err := errors.Join(os.Symlink(b.bin, helper), os.Mkdir(target, 0o700)); err != nil {
		t.Fatal(err)
	}
	b.tool("cp", "/bin/mount", filepath.Join(dir, "mount"))
	b.write(script, "#!/bin/sh\n"+dir+`/mount "$@"; status=$?; kill -INT $PPID
i=0; while [ $i -lt 50 ]; do i=$((i+1)); sleep 0.01; done; exit $status`, 0o755)
	image := b.image(16 << 20)
	b.tool("mkfs.ext4", "-q", "-F", image)
	b.serve()
	out := b.tool("unshare", "--mount", "sh", "-c", `mount --bind "$1" /bin/mount && "$2" "$3" "$4" >&2; echo "status $?"
		grep -q " $4 ext4 " /proc/self/mounts && echo mounted; true`, "sh", script, helper, image, target)
	if out != "status 0\nmounted\n" {
		t.Errorf("the helper says %q", out)
	}
	waitUntil(t, "nothing is left", func() bool { return len(b.list()) == 0 })
}
