package table

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// mapper is device mapper of the kernel, by dmsetup.
type mapper struct {
	t    testing.TB
	a, b string // disks with blocks of 512 and 4096 bytes, as MAJOR:MINOR
}

// newMapper makes the disks and adds the key of the cases.
func newMapper(t testing.TB, needs ...ublktest.Need) *mapper {
	t.Helper()
	ublktest.Kernel(t, needs...)
	// libdevmapper makes the nodes itself: no udev runs in the machine.
	t.Setenv("DM_DISABLE_UDEV", "1")
	m := &mapper{t: t}
	for _, module := range []string{"dm_mod", "dm_zero", "dm_crypt", "dm_snapshot", "dm_verity", "loop"} {
		m.must("modprobe", module)
	}
	m.a, m.b = m.disk(512), m.disk(4096)
	m.key("ublk-loop:test", 64)
	m.key("ublk-loop:test48", 48)
	return m
}

// disk makes a disk with the given logical block.
func (m *mapper) disk(block int) string {
	m.t.Helper()
	file := filepath.Join(m.t.TempDir(), "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Truncate(file, sectorsOfDisks*sectorSize); err != nil {
		m.t.Fatal(err)
	}
	node := m.must("losetup", "--find", "--show", "--sector-size", fmt.Sprint(block), file)
	m.t.Cleanup(func() { m.must("losetup", "--detach", node) })
	if got := m.must("blockdev", "--getss", node); got != fmt.Sprint(block) {
		m.t.Fatalf("%s: blocks of %s bytes, not %d", node, got, block)
	}
	number, err := os.ReadFile(filepath.Join("/sys/class/block", filepath.Base(node), "dev"))
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.TrimSpace(string(number))
}

// key adds a key to the keyrings of the process.
func (m *mapper) key(description string, n int) {
	m.t.Helper()
	content := make([]byte, n)
	content[n-1] = 1 // the halves differ
	id, err := unix.AddKey("user", description, content, unix.KEY_SPEC_USER_SESSION_KEYRING)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		if _, err := unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_USER_SESSION_KEYRING, 0, 0); err != nil {
			m.t.Error(err)
		}
	})
}

// must runs a command that succeeds and returns its output without white space
// at the end.
func (m *mapper) must(name string, args ...string) string {
	m.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimRight(string(out), " \t\n")
}

// dmsetup runs dmsetup with text as its input. It returns the errno of the
// kernel, or ErrSyntax if dmsetup itself refuses the text.
func (m *mapper) dmsetup(text string, args ...string) error {
	m.t.Helper()
	cmd := exec.Command("dmsetup", args...)
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	for _, errno := range []syscall.Errno{
		syscall.EINVAL, syscall.ENOENT, syscall.EOVERFLOW, syscall.EBUSY, syscall.ENXIO, syscall.ENOTBLK, syscall.ENOKEY, syscall.E2BIG,
	} {
		if strings.Contains(string(out), " ioctl on ") && strings.Contains(strings.ToLower(string(out)), " failed: "+errno.Error()) {
			return errno
		}
	}
	if strings.Contains(string(out), " ioctl on ") {
		m.t.Fatalf("dmsetup with %q: unknown errno: %s", text, out)
	}
	return fmt.Errorf("%w: %s", ErrSyntax, out)
}

// removeAll removes what dmsetup has made.
func (m *mapper) removeAll() {
	m.t.Helper()
	m.must("dmsetup", "remove_all")
	if left := m.must("dmsetup", "ls"); left != "No devices found" {
		m.t.Fatalf("left after dmsetup remove_all: %s", left)
	}
}

// created makes a device of lines and returns what dmsetup table prints.
func (m *mapper) created(text string) (string, error) {
	m.t.Helper()
	defer m.removeAll()
	args := []string{"create", "ublk-loop-test"}
	if slices.Contains(strings.Fields(text), "verity") { // a tab may be before it
		args = append(args, "--readonly")
	}
	if err := m.dmsetup(text, args...); err != nil {
		return "", err
	}
	out, err := exec.Command("dmsetup", "table", "ublk-loop-test").Output()
	if err != nil {
		m.t.Fatalf("dmsetup table: %v", err)
	}
	return string(out), nil
}

// The kernel takes the tables that this package takes, and dmsetup prints the
// same lines of them.
func TestKernelDmsetupAccepts(t *testing.T) {
	m := newMapper(t)
	for _, tt := range accepted {
		text := withDevices(tt.text, m.a, m.b)
		s, err := Parse([]byte(text), Options{})
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		got, err := m.created(text)
		if err != nil {
			t.Errorf("%q: dmsetup: %v", text, err)
		} else if ours := s.Tables[0].String(); got != ours {
			t.Errorf("%q: dmsetup prints %q, not %q", text, got, ours)
		}
	}
}

// The kernel refuses the tables that this package refuses, with the same errno,
// apart from those of TestKernelDmsetupIsLaxer.
func TestKernelDmsetupRefuses(t *testing.T) {
	m := newMapper(t)
	for _, tt := range refused {
		text := withDevices(tt.text, m.a, m.b)
		if _, err := m.created(text); !sameKind(err, tt.err) {
			t.Errorf("%q: dmsetup: %v, not %v", text, err, tt.err)
		}
	}
}

// Linux 6.12 and 6.18 take a START that is too large, as another number. 7.3 refuses it.
func TestKernelDmsetupTooLargeStart(t *testing.T) {
	m := newMapper(t)
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	printed, err := m.created(withDevices(tooLargeStart, m.a, m.b))
	if strings.HasPrefix(unix.ByteSliceToString(name.Release[:]), "6.") {
		if want := "0 8 linear " + m.a + " 0\n"; err != nil || printed != want {
			t.Errorf("dmsetup prints %q, error %v; want %q", printed, err, want)
		}
		return
	}
	if !sameKind(err, syscall.EINVAL) {
		t.Errorf("dmsetup: %v, not %v", err, syscall.EINVAL)
	}
}

// The differences that docs/tables.md lists exist.
func TestKernelDmsetupIsLaxer(t *testing.T) {
	m := newMapper(t)
	if err := os.Symlink(m.node(m.a), "/tmp/\x01"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.Remove("/tmp/\x01") }()
	for _, tt := range stricter {
		text := withDevices(tt.text, m.a, m.b)
		if _, err := m.created(text); err != nil {
			t.Errorf("%q: dmsetup: %v", text, err)
		}
	}
}

// createdStack makes devices of a stack and returns what dmsetup table
// --concise prints.
func (m *mapper) createdStack(text string) (string, error) {
	m.t.Helper()
	defer m.removeAll()
	if err := m.dmsetup(text, "create", "--concise"); err != nil {
		return "", err
	}
	return m.must("dmsetup", "table", "--concise"), nil
}

// major returns the major number of device mapper.
func (m *mapper) major() int {
	m.t.Helper()
	text, err := os.ReadFile("/proc/devices")
	if err != nil {
		m.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if number, found := strings.CutSuffix(line, " device-mapper\n"); found {
			n, err := strconv.Atoi(strings.TrimSpace(number))
			if err != nil {
				m.t.Fatal(err)
			}
			return n
		}
	}
	m.t.Fatal("/proc/devices has no device-mapper")
	return 0
}

// noMinor matches the fields of a table without a minor number, which is 0 in
// the lists if the kernel chooses it.
var noMinor = regexp.MustCompile(`((?:^|;)[^,;]*,[^,;]*),,`)

// dmsetup makes of a stack what this package reads of it, also when it is
// printed. dmsetup prints the minor numbers that the kernel has chosen, in the
// order of the names.
func TestKernelDmsetupConcise(t *testing.T) {
	m := newMapper(t)
	for _, tt := range acceptedStacks {
		text := inStack(tt.text, m.a, m.b, m.major())
		s, err := Parse([]byte(text), Options{DeviceMapperMajor: uint32(m.major())})
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		want := tt.printed
		if want == "" {
			want = tt.text
		}
		want = noMinor.ReplaceAllString(inStack(want, m.a, m.b, m.major()), "$1,0,")
		for _, text := range []string{text, s.Concise()} {
			got, err := m.createdStack(text)
			if err != nil {
				t.Errorf("%q: dmsetup: %v", text, err)
			} else if got != strings.TrimRight(want, " ") {
				t.Errorf("%q: dmsetup prints %q, not %q", text, got, want)
			}
		}
	}
}

// dmsetup finds the same path in a stack with escapes, and in its lines, which
// have none.
func TestKernelDmsetupEscapes(t *testing.T) {
	m := newMapper(t)
	if err := os.Symlink(m.node(m.a), oddPath); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.Remove(oddPath) }()
	s, err := Parse([]byte(oddStack), Options{})
	if err != nil {
		t.Fatal(err)
	}
	line := "0 8 linear " + m.a + " 0"
	if got, err := m.createdStack(s.Concise()); err != nil || got != "a,,0,rw,"+line {
		t.Errorf("%s: dmsetup prints %q, %v", s.Concise(), got, err)
	}
	if got, err := m.created(s.Tables[0].String()); err != nil || got != line+"\n" {
		t.Errorf("%q: dmsetup prints %q, %v", s.Tables[0].String(), got, err)
	}
}

// dmsetup refuses the stacks that this package refuses, apart from those that
// docs/tables.md lists.
func TestKernelDmsetupRefusesConcise(t *testing.T) {
	m := newMapper(t)
	for _, tt := range refusedStacks {
		text := inStack(tt.text, m.a, m.b, m.major())
		if _, err := m.createdStack(text); !sameKind(err, tt.err) {
			t.Errorf("%q: dmsetup: %v, not %v", text, err, tt.err)
		}
	}
	for _, tt := range stricterStacks {
		text := inStack(tt.text, m.a, m.b, m.major())
		if _, err := m.createdStack(text); err != nil {
			t.Errorf("%q: dmsetup: %v", text, err)
		}
	}
}

// node returns the path of a disk.
func (m *mapper) node(number string) string {
	m.t.Helper()
	link, err := os.Readlink("/sys/dev/block/" + number)
	if err != nil {
		m.t.Fatal(err)
	}
	return "/dev/" + filepath.Base(link)
}
