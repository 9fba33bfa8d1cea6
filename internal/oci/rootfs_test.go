package oci

import (
	"errors"
	"maps"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func asked(pairs ...string) map[string]string {
	annotations := map[string]string{"org.example": "x", imageAnnotation: "/i/a.img"}
	for i := 0; i < len(pairs); i += 2 {
		annotations[prefix+pairs[i]] = pairs[i+1]
	}
	return annotations
}

func TestParseRootfs(t *testing.T) {
	plain := mountOptions{readOnly: true, flags: unix.MS_NODEV}
	for _, tt := range []struct {
		annotations map[string]string
		want        rootfs
	}{
		{asked(), rootfs{image: "/i/a.img", options: plain}},
		{asked("fstype", "auto", "overlay", "none", "subdir", "/", "options", "ro"), rootfs{image: "/i/a.img", options: plain}},
		{asked("fstype", "xfs", "subdir", "/usr/lib x"), rootfs{image: "/i/a.img", fsType: xfs, options: plain, subdir: "usr/lib x"}},
		{asked("options", "rw"), rootfs{image: "/i/a.img", options: mountOptions{flags: unix.MS_NODEV}}},
		{asked("options", "noatime,ro,nouuid,sync"), rootfs{image: "/i/a.img", options: mountOptions{
			readOnly: true, flags: unix.MS_NODEV | unix.MS_NOATIME | unix.MS_SYNCHRONOUS, special: []string{"nouuid"},
		}}},
		{asked("overlay", "tmpfs:64m"), rootfs{image: "/i/a.img", options: plain, overlay: overlay{kind: "tmpfs", size: 64 << 20}}},
		{asked("overlay", "tmpfs:1048576"), rootfs{image: "/i/a.img", options: plain, overlay: overlay{kind: "tmpfs", size: 1048576}}},
		{asked("overlay", "dir:/var/x"), rootfs{image: "/i/a.img", options: plain, overlay: overlay{kind: "dir", dir: "/var/x"}}},
		{asked("cow", "transient", "options", "rw"), rootfs{image: "/i/a.img", options: mountOptions{flags: unix.MS_NODEV}, disk: Disk{cow: cow{kind: cowTransient}}}},
		{asked("cow", "transient:1m", "options", "rw"), rootfs{image: "/i/a.img", options: mountOptions{flags: unix.MS_NODEV}, disk: Disk{cow: cow{kind: cowTransient, size: 1 << 20}}}},
		{asked("cow", "file:/s/1", "options", "rw"), rootfs{image: "/i/a.img", options: mountOptions{flags: unix.MS_NODEV}, disk: Disk{cow: cow{kind: cowFile, path: "/s/1"}}}},
		{asked("encrypt", "keyring:web"), rootfs{image: "/i/a.img", options: plain, disk: Disk{encryption: encryption{keyKeyring, "web"}}}},
		{asked("cow", "transient", "options", "rw", "encrypt", "file:/k"), rootfs{image: "/i/a.img", options: mountOptions{flags: unix.MS_NODEV}, disk: Disk{
			cow: cow{kind: cowTransient}, encryption: encryption{keyFile, "/k"},
		}}},
		{asked("cow", "transient", "options", "rw", "encrypt", "ephemeral"), rootfs{image: "/i/a.img", options: mountOptions{flags: unix.MS_NODEV}, disk: Disk{
			cow: cow{kind: cowTransient}, encryption: encryption{kind: ephemeral},
		}}},
		{asked("verity.roothash", "auto"), rootfs{image: "/i/a.img", options: plain, disk: Disk{verified: verified{root: auto}}}},
		{asked("verity.roothash", testRoot, "verity.hashoffset", "4096", "verity.hashfile", "/i/a.verity", "verity.roothashsig", "/i/a.p7s"), rootfs{
			image: "/i/a.img", options: plain, disk: Disk{verified: verified{testRoot, "4096", "/i/a.verity", "/i/a.p7s"}},
		}},
		{asked("verity.roothash", "auto", "verity.roothashsig", "auto", "cow", "transient", "options", "rw"), rootfs{
			image: "/i/a.img", options: mountOptions{flags: unix.MS_NODEV}, disk: Disk{verified: verified{root: auto, signature: auto}, cow: cow{kind: cowTransient}},
		}},
		{asked("io.rbps", "1m", "io.wbps", "2097152", "io.riops", "100", "io.wiops", "max"), rootfs{image: "/i/a.img", options: plain, limits: []ioLimit{
			{"throttleReadBpsDevice", 1 << 20}, {"throttleWriteBpsDevice", 2 << 20}, {"throttleReadIOPSDevice", 100},
		}}},
		{asked("io.wiops", "4294967294", "io.rbps", "max"), rootfs{image: "/i/a.img", options: plain, limits: []ioLimit{{"throttleWriteIOPSDevice", math.MaxUint32 - 1}}}},
	} {
		tt.want.disk.ReadOnly = tt.want.options.readOnly
		got, err := parseRootfs(tt.annotations)
		if err != nil || !reflect.DeepEqual(*got, tt.want) {
			t.Errorf("%v: %+v, error %v, want %+v", tt.annotations, got, err, tt.want)
		}
	}
}

// testRoot is a root hash of the right length.
var testRoot = strings.Repeat("3c", 32)

var refusedRootfs = [][]string{
	{"image", ""},
	{"image", "a.img"},
	{"image", "/"},
	{"image", "/i/../a"},
	{"image", "/i//a"},
	{"image", "/i/a/"},
	{"image", "/i/./a"},
	{"image", "/i\x00/a"},
	{"image", "/caf\ufffd"},
	{"image", "/caf\xe9"},
	{"subdir", "/caf\ufffd"},
	{"overlay", "dir:/caf\ufffd"},
	{"fstype", ""},
	{"fstype", "btrfs"},
	{"fstype", "EXT4"},
	{"options", ""},
	{"options", "ro,rw"},
	{"options", "suid"},
	{"options", "nosuid"},
	{"options", "noexec"},
	{"options", "dev"},
	{"options", "errors=panic"},
	{"options", "ro,"},
	{"options", "bind"},
	{"options", "remount"},
	{"options", "ro noatime"},
	{"options", "logdev=/dev/sda"},
	{"options", "journal_path=/x"},
	{"options", "RO"},
	{"overlay", ""},
	{"overlay", "tmpfs"},
	{"overlay", "tmpfs:"},
	{"overlay", "tmpfs:0"},
	{"overlay", "tmpfs:0k"},
	{"overlay", "tmpfs:1m,mode=777"},
	{"overlay", "tmpfs:50%"},
	{"overlay", "tmpfs:1mm"},
	{"overlay", "tmpfs:m"},
	{"overlay", "tmpfs:-1"},
	{"overlay", "tmpfs:999999999999g"},
	{"overlay", "tmpfs:9223372036854775808"},
	{"overlay", "tmpfs:17179869185g"}, // 1 GiB of what the kernel would see
	{"overlay", "tmpfs:1t"},
	{"overlay", "tmpfs:1kb"},
	{"overlay", "tmpfs:+1m"},
	{"overlay", "dir"},
	{"overlay", "dir:"},
	{"overlay", "dir:x"},
	{"overlay", "dir:/a/../b"},
	{"overlay", "nfs:/x"},
	{"overlay", "tmpfs:1m", "options", "rw"},
	{"cow", ""},
	{"cow", "transient"},
	{"cow", "transient:0", "options", "rw"},
	{"cow", "transient:", "options", "rw"},
	{"cow", "file:x", "options", "rw"},
	{"cow", "file", "options", "rw"},
	{"cow", "/x", "options", "rw"},
	{"verity.roothash", ""},
	{"verity.roothash", "/etc/passwd"},
	{"verity.roothash", "abcd"},
	{"verity.roothash", testRoot + "00"},
	{"verity.roothash", "auto", "options", "rw"},
	{"verity.hashoffset", "4096"},
	{"verity.hashoffset", "100", "verity.roothash", testRoot},
	{"verity.hashoffset", "-512", "verity.roothash", testRoot},
	{"verity.hashoffset", "4k", "verity.roothash", testRoot},
	{"verity.hashfile", "/i/a.verity"},
	{"verity.hashfile", "a.verity", "verity.roothash", testRoot},
	{"verity.hashfile", "/i/../a", "verity.roothash", testRoot},
	{"verity.roothashsig", "auto"},
	{"verity.roothashsig", "a.p7s", "verity.roothash", testRoot},
	{"verity.fec", "x"},
	{"encrypt", ""},
	{"encrypt", "file:key"},
	{"encrypt", "aes"},
	{"encrypt", "ephemeral"},
	{"encrypt", "ephemeral", "options", "rw"},
	{"encrypt", "ephemeral", "options", "rw", "cow", "file:/s/1"},
	{"encrypt", "ephemeral:x", "options", "rw", "cow", "transient"},
	{"io.rbps", ""},
	{"io.rbps", "0"},
	{"io.rbps", "-1"},
	{"io.rbps", "1mb"},
	{"io.wbps", "18446744073709551616"},
	{"io.riops", "0"},
	{"io.riops", "1k"},
	{"io.riops", "4294967295"},
	{"io.wiops", "Max"},
	{"io.wiops", "1 rbps=2"},
	{"io.weight", "100"},
	{"subdir", ""},
	{"subdir", "usr"},
	{"subdir", "/usr/.."},
	{"subdir", "/../etc"},
	{"optoins", "ro"},
	{"", "x"},
	{"image.x", "y"},
}

// documentedRows returns the cells of the documented table of annotations.
func documentedRows(t *testing.T) (rows [][]string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/containers.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "| `dev.ublk-loop.rootfs.` |")
	table, _, _ = strings.Cut(table, "\n\n")
	for _, row := range strings.Split(table, "\n")[2:] {
		cells := strings.Split(strings.Trim(row, "|"), " | ")
		if len(cells) != 5 {
			t.Fatalf("a row of %d cells: %s", len(cells), row)
		}
		rows = append(rows, cells)
	}
	return rows
}

// The documented table has exactly the annotations, with their defaults.
func TestAnnotationsAreDocumented(t *testing.T) {
	documented := map[string]string{}
	for _, cells := range documentedRows(t) {
		for name := range strings.SplitSeq(strings.Trim(cells[0], " "), ", ") {
			documented[strings.Trim(name, "`")] = strings.Trim(cells[2], "` |")
		}
	}
	parsed := map[string]string{"image": "required"}
	for _, a := range (&rootfs{}).annotations()[1:] {
		parsed[a.name] = a.value
	}
	if !maps.Equal(parsed, documented) {
		t.Errorf("documented are %q, parsed are %q", documented, parsed)
	}
}

func TestParseRootfsRefuses(t *testing.T) {
	for _, pairs := range refusedRootfs {
		r, err := parseRootfs(asked(pairs...))
		if !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), prefix+pairs[0]) {
			t.Errorf("%q: %+v, error %v", pairs, r, err)
		}
	}
}

// No accepted text can end an option of mount(2) early, and every accepted path is a
// clean absolute path.
func FuzzParseRootfs(f *testing.F) {
	f.Add("/i/a.img", "auto", "ro,noatime", "tmpfs:1m", "/usr")
	f.Add("/i/../a", "xfs", "rw", "dir:/x", "/")
	f.Fuzz(func(t *testing.T, image, fsType, options, over, subdir string) {
		r, err := parseRootfs(asked("image", image, "fstype", fsType, "options", options, "overlay", over, "subdir", subdir))
		if err != nil {
			return
		}
		if strings.Contains(r.subdir, "..") && slices.Contains(strings.Split(r.subdir, "/"), "..") ||
			strings.ContainsRune(r.image+r.overlay.dir+r.subdir, 0) {
			t.Errorf("%+v", r)
		}
		for _, kind := range fsTypes {
			flags, data, err := r.options.forFS(fileSystem{kind: kind})
			if err == nil && flags&unix.MS_NODEV == 0 {
				t.Errorf("%q: flags %x", options, flags)
			}
			for _, name := range strings.Split(data, ",") {
				if name != "" && !slices.Contains(slices.Collect(maps.Keys(specialOptions)), name) {
					t.Errorf("%q: data %q", options, data)
				}
			}
		}
	})
}

func TestMountOptionsSaysWhatIsNotThere(t *testing.T) {
	o, err := parseOptions("ro,norecovery")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := o.forFS(fileSystem{kind: ext4}); err == nil || !strings.HasPrefix(err.Error(), "ext4 has no option norecovery") {
		t.Errorf("error %v", err)
	}
}

func TestMountOptions(t *testing.T) {
	for _, tt := range []struct {
		options string
		fs      fileSystem
		data    string // "error" for an error
	}{
		{"ro", fileSystem{kind: squashfs}, ""},
		{"ro", fileSystem{kind: erofs}, ""},
		{"rw", fileSystem{kind: squashfs}, "error"},
		{"rw", fileSystem{kind: erofs}, "error"},
		{"ro", fileSystem{kind: ext4}, errorsReadOnly},
		{"ro", fileSystem{kind: ext4, dirty: true}, errorsReadOnly + ",noload"},
		{"ro,noload", fileSystem{kind: ext4, dirty: true}, "noload," + errorsReadOnly},
		{"rw", fileSystem{kind: ext4, dirty: true}, errorsReadOnly},
		{"rw,errors=continue", fileSystem{kind: ext4}, errorsContinue},
		{"ro", fileSystem{kind: xfs}, "nouuid"},
		{"rw,discard,nouuid", fileSystem{kind: xfs}, "discard,nouuid"},
		{"ro,norecovery", fileSystem{kind: xfs}, "norecovery,nouuid"},
		{"ro,norecovery", fileSystem{kind: ext4}, "error"},
		{"ro,noload", fileSystem{kind: erofs}, "error"},
	} {
		o, err := parseOptions(tt.options)
		if err != nil {
			t.Fatal(err)
		}
		flags, data, err := o.forFS(tt.fs)
		if err != nil {
			data = "error"
		}
		if data != tt.data || err == nil && (flags&unix.MS_RDONLY != 0) == strings.Contains(tt.options, "rw") {
			t.Errorf("%s of %+v: flags %x, data %q, want %q", tt.options, tt.fs, flags, data, tt.data)
		}
	}
}
