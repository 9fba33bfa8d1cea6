package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// losetup returns the path of ublk-losetup.
func (b *bed) losetup() string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "ublk-losetup")
	b.symlink(b.bin, path)
	return path
}

// says runs a program, and returns its outputs and its exit status. The name of the program
// is left out of its errors.
func (b *bed) says(program string, args ...string) string {
	b.Helper()
	r := b.runCommand(exec.Command(program, args...))
	errs := regexp.MustCompile(`(?m)^[^ ]*losetup: `).ReplaceAllString(r.err, "losetup: ")
	return r.out + strings.ReplaceAll(errs, "Try '"+filepath.Base(program), "Try 'losetup") + "status " + strconv.Itoa(r.status) + "\n"
}

// The machine's losetup, with loop devices, and ublk-losetup say the same.
func TestKernelLosetupBesideLosetup(t *testing.T) {
	b := kernelBed(t, ublktest.Once)
	if err := exec.Command("modprobe", "loop").Run(); err != nil {
		t.Skipf("no loop devices: %v", err)
	}
	ours := b.losetup()
	tmpfs := t.TempDir()
	if err := unix.Mount("tmpfs", tmpfs, "tmpfs", 0, ""); err != nil { // where neither has direct I/O
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(tmpfs, 0) })
	image, ragged := filepath.Join(tmpfs, "a b\\c.img"), filepath.Join(tmpfs, "ragged")
	b.write(image, strings.Repeat("x", 4<<20), 0o600)
	b.write(ragged, strings.Repeat("x", 1000), 0o600)
	t.Cleanup(func() { _ = exec.Command("losetup", "-D").Run() })
	for _, args := range slices.Concat(losetupCalls(image, ragged), losetupRefusals(image, ragged)) {
		saysSame(b, ours, args)
	}
}

// losetupCalls returns calls of losetup, each with what the ones before it have left.
func losetupCalls(image, ragged string) [][]string {
	return [][]string{
		{"-l"},
		{"-J"},
		{"--raw"},
		{"-a"},
		{"-D"},
		{"-f"},
		{"-j", image},
		{"-j", "/nonexistent"},
		{"-f", "--show", "-o", "1M", "--sizelimit", "1.5MiB", image},
		{},
		{"-l"},
		{"-l", "-n"},
		{"-a"},
		{"-J"},
		{"--raw"},
		{"-lJ"},
		{"DEV0"},
		{"-l", "DEV0"},
		{"-J", "-l", "DEV0"},
		{"-f"},
		{"-O", "NAME,offset,RO,PARTSCAN,BACK-INO"},
		{"-n", "-O", "OFFSET,SIZELIMIT,NAME"},
		{"-J", "-O", "BACK-FILE,DIO"},
		{"-O", "+PARTSCAN"},
		{"-O", "NAME,BACK-MAJ:MIN"},
		{"-j", image},
		{"-j", image, "-o", "1M"},
		{"-j", image, "-o", "0"},
		{"--list", "--associated", image},
		{"--associated=" + image},
		{"-L", "-f", "--show", "-o", "1M", "--sizelimit", "1536K", image},
		{"-Lf", "-o", "512", image},
		{"-L", "DEV0", image},
		{"DEV0", image},
		{"DEV1", ragged},
		{"-l", "DEV1"},
		{"--show", "DEV3", image},
		{"-d", "DEV3"},
		{"-c", "DEV1"},
		{"-Lf", "-r", "--show", ragged},
		{"-d", "DEV1"},
		{"-d", "DEV1"},
		{"-d", "DEV1", "DEV0"},
		{"-l"},
		{"-r", "--show", "DEV0", ragged},
		{"-l"},
	}
}

// losetupRefusals returns calls of losetup that end what losetupCalls has left, and wrong ones.
func losetupRefusals(image, ragged string) [][]string {
	return [][]string{
		{"-Lf", ragged},
		{"-dDEV0"},
		{"-l"},
		{"-f", "/nonexistent"},
		{"-f", "/"},
		{"-fb", "511", image},
		{"-x"},
		{"--nonsense"},
		{"-o"},
		{"--offset"},
		{"--all=3"},
		{"-O", "FOO"},
		{"-o", "abc"},
		{"-fo", "-5", image},
		{"-o", "17E"},
		{"-r"},
		{"-o", "5", "-l"},
		{"-l", "--sizelimit", "5"},
		{"-f", image, image},
		{"--s"},
		{"--show"},
	}
}

// saysSame compares the two programs. DEV0 in an argument stands for the device.
func saysSame(b *bed, ours string, args []string) {
	b.Helper()
	with := func(device string) []string {
		list := make([]string, len(args))
		for i, arg := range args {
			list[i] = strings.ReplaceAll(arg, "DEV", device)
		}
		return list
	}
	device := regexp.MustCompile(`loop([0-9])`)
	want := device.ReplaceAllString(b.says("losetup", with("/dev/loop")...), "ublkb$1")
	got := b.says(ours, with("/dev/ublkb")...)
	got, want = comparable(got), comparable(want)
	if got != want {
		b.Errorf("losetup %q says\n%sublk-losetup says\n%s", args, want, got)
	}
}

// comparable leaves out what differs: a name is one character longer, and so is its column in
// a table, and util-linux 2.38 words warnings otherwise.
func comparable(text string) string {
	text = regexp.MustCompile(` +`).ReplaceAllString(text, " ")
	text = regexp.MustCompile(`(?m)^(cause|hint): .*\n`).ReplaceAllString(text, "") // util-linux has none
	return regexp.MustCompile(`(?m): Warning: .*$`).ReplaceAllString(text, ": Warning")
}

// takeFirst attaches another file, so that the device under test does not get the first number.
func (b *bed) takeFirst() client.Device {
	b.Helper()
	return b.add("--standalone", b.image(1<<20))
}

// A device in use that is detached goes with its last user, if serve has it. With
// --nooverlap it stays.
func TestKernelLosetupDetachesLazily(t *testing.T) {
	b := kernelBed(t)
	losetup, image, dir := b.losetup(), b.image(16<<20), t.TempDir()
	b.tool("mkfs.ext4", "-q", "-F", image)
	b.takeFirst()
	attach := func(flags ...string) string {
		return strings.TrimSuffix(b.tool(losetup, append(flags, "-f", "--show", image)...), "\n")
	}
	device := attach()
	b.tool("mount", device, dir)
	got := b.says(losetup, "-d", device)
	if !strings.HasPrefix(got, "losetup: "+device+": detach failed: Device or resource busy\nhint: ") || !strings.HasSuffix(got, "status 1\n") {
		t.Errorf("without serve: %s", got)
	}
	b.tool("umount", dir)
	b.tool(losetup, "-D")

	b.serve()
	device = attach()
	b.tool("mount", device, dir)
	autoclear := func(want string) {
		t.Helper()
		if got := b.tool(losetup, "-n", "-O", "AUTOCLEAR", device); got != want+"\n" {
			t.Errorf("autoclear is %q, want %s", got, want)
		}
	}
	autoclear("0")
	b.tool(losetup, "--detach", device)
	autoclear("1")
	if got := attach("-L"); got != device {
		t.Errorf("--nooverlap finds %q", got)
	}
	autoclear("0")
	b.tool("umount", dir)
	b.tool("mount", device, dir)
	b.tool(losetup, "-D")
	before := b.list(device)[0]
	b.tool("umount", dir)
	b.isGone(before)
}

// Of calls with --nooverlap at the same time, one makes the device, and the others find it.
func TestKernelLosetupFindsTogether(t *testing.T) {
	b := kernelBed(t, ublktest.Once)
	b.serve()
	losetup, image := b.losetup(), b.image(1<<20)
	for range 3 {
		ended := make(chan string)
		for range 8 {
			go func() {
				out, err := exec.Command(losetup, "-L", "-f", "--show", image).CombinedOutput()
				ended <- fmt.Sprintf("%s%v", out, err)
			}()
		}
		first := <-ended
		if !regexp.MustCompile(`^/dev/ublkb[0-9]+\n<nil>$`).MatchString(first) {
			t.Error(first)
		}
		for range 7 {
			if said := <-ended; said != first {
				t.Errorf("%q besides %q", said, first)
			}
		}
		b.tool(losetup, "-D")
	}
}

// What losetup's columns say of a device that has every option, and what -c changes.
func TestKernelLosetupColumns(t *testing.T) {
	b := kernelBed(t)
	first := b.takeFirst()
	losetup, image := b.losetup(), b.image(1<<20)
	device := strings.TrimSpace(b.tool(losetup, "--show", "-f", "-P", "-r", "-b", "4096", "--direct-io=off", "--loop-ref", "my disk", image))
	s := b.list(device)[0]
	major, minor, _ := strings.Cut(s.MajMin, ":")
	fileMajor, fileMinor, _ := strings.Cut(s.FileDevice, ":")
	want := strings.Join([]string{device, "0", image, strconv.FormatUint(s.FileInode, 10), s.FileDevice, fileMajor, fileMinor, s.MajMin, major, minor, "0", "1", `my\x20disk`, "1", "0", "0", "4096"}, " ")
	if got := b.tool(losetup, "--raw", "-n", "--output-all", device); got != want+"\n" {
		t.Errorf("all columns are\n%swant\n%s", got, want)
	}
	renamed := image + ".2"
	if err := os.Rename(image, renamed); err != nil {
		t.Fatal(err)
	}
	backFile := func() string { return strings.TrimSpace(b.tool(losetup, "-n", "-O", "BACK-FILE", device)) }
	if got := backFile(); got != renamed {
		t.Errorf("a renamed file is %q", got)
	}
	if err := os.Remove(renamed); err != nil {
		t.Fatal(err)
	}
	if got := backFile(); got != renamed+" (deleted)" {
		t.Errorf("a deleted file is %q", got)
	}
	for _, args := range [][]string{{"-b", "512", device}, {"--direct-io=on", device}, {"--remove", device}, {"-f", "-c", device}, {"/dev/loop7", "/dev/null"}} {
		if got := comparable(b.says(losetup, args...)); !strings.HasSuffix(got, "status 1\n") || strings.Count(got, "\n") != 2 {
			t.Errorf("%q: %s", args, got)
		}
	}
	b.tool(losetup, "-d", device)
	b.del(first.Device)
}

// -c gives a device the size of its file, without the part of a sector at the end.
func TestKernelLosetupSetCapacity(t *testing.T) {
	b := kernelBed(t, ublktest.OldestKernel)
	b.takeFirst()
	losetup, image := b.losetup(), b.image(1<<20+100)
	got := b.says(losetup, "-f", "--show", image)
	device, _, _ := strings.Cut(got, "\n")
	if want := device + "\nlosetup: " + image + ": Warning: file does not end on a 512-byte sector boundary; the remaining end of the file will be ignored.\nstatus 0\n"; got != want {
		t.Errorf("attached: %swant %s", got, want)
	}
	if err := os.Truncate(image, 2<<20+100); err != nil {
		t.Fatal(err)
	}
	got = b.says(losetup, "-c", device)
	want := uint64(2 << 20)
	if got != "status 0\n" {
		want = 1 << 20
		if !strings.HasPrefix(got, "losetup: "+device+": set capacity failed: Operation not supported\nhint: resize needs Linux 6.16") {
			t.Errorf("resized: %s", got)
		}
	}
	if s := b.list(device)[0]; s.Size != want || s.SizeLimit != 0 {
		t.Errorf("it has %d bytes and the limit %d", s.Size, s.SizeLimit)
	}
	b.tool(losetup, "-D")
}
