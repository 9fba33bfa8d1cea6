package table

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// acceptedStacks are stacks that the kernel takes too, as they are printed; an
// empty text stands for the stack itself. $M is the major number of device
// mapper.
var acceptedStacks = []struct{ text, printed string }{
	{"a,,,rw,0 8 zero ", ""},
	{"a,,,ro,0 8 zero ", ""},
	{"a,,,,0 8 zero", "a,,,rw,0 8 zero "},
	{"a,,,,0 8 zero;", "a,,,rw,0 8 zero "},
	{"a,,,,0 8 zero\n", "a,,,rw,0 8 zero "},
	{"a,,,,0 8 zero;\n", "a,,,rw,0 8 zero "},
	{"a,,,,0 8 zer\\o ", "a,,,rw,0 8 zero "},
	{"a, u-1,\t7, rw,\n0 8 zero ,8 8 error", "a,u-1,7,rw,0 8 zero ,8 8 error "},
	{"a,,08,,0 8 zero", "a,,8,rw,0 8 zero "},
	{"a,,9,,\n0 8 zero\n8 8 error\n", "a,,9,rw,0 8 zero ,8 8 error "},
	{"a,,9,,,0 8 zero,,,8 8 error", "a,,9,rw,0 8 zero ,8 8 error "},
	{"a,,9,,0 8 zero # x,8 8 error", "a,,9,rw,0 8 zero ,8 8 error "},
	{"a+b-.:=@_1,#u,,rw,0 8 zero ", ""},
	{"a0189+-.:=@_bzABYZ,#zZ,,rw,0 8 zero ", ""},
	{"\\a\\+,,,,0 8 \\zero", "a+,,,rw,0 8 zero "},
	{"a,,,rw,0 8 linear $A 0", ""},
	{"base,,4,ro,0 64 linear $A 0;top,,,ro,0 64 linear $M:4 0", ""},
	{"base,,4,rw,0 64 linear $A 0;  top,,,ro,0 32 linear /dev/mapper/base 32", "base,,4,rw,0 64 linear $A 0;top,,,ro,0 32 linear $M:4 32"},
	{"a,,1,rw,0 8 linear $A 0;b,,2,rw,0 8 zero ;c,,3,rw,0 16 striped 2 8 $M:1 0 $M:2 0", ""},
	{"base,,1,ro,0 64 linear $A 0;top,,2,rw,0 64 snapshot $M:1 $B P 8", ""},
	{"low,,1,rw,0 64 crypt aes-xts-plain64 $K 0 $A 0;top,,2,rw,0 32 crypt aes-xts-plain64 $K 0 $M:1 32 1 sector_size:4096", ""},
}

// refusedStacks are stacks that dmsetup refuses, and the error.
var refusedStacks = []struct {
	text string
	err  error
}{
	{"a,,,rw,0 8 zero;;", errDmsetup},
	{"a,,,rw,0 8 zero,", errDmsetup},
	{"a,,,rx,0 8 zero", errDmsetup},
	{"a,,,rw ,0 8 zero", errDmsetup},
	{"a,,,RO,0 8 zero", errDmsetup},
	{"a,,,rw", errDmsetup},
	{"a,,,,", errDmsetup},
	{"a,,,, ", errDmsetup},
	{"a,", errDmsetup},
	{"a,,,,0 8 zer\\o", errDmsetup},
	{"a,,,,0 8 zero\\", errDmsetup},
	{"a,,,,0 8 zero;b", errDmsetup},
	{"a,,,,0 8", errDmsetup},
	{",,,,0 8 zero", syscall.EINVAL},
	{"a/b,,,,0 8 zero", errDmsetup},
	{"control,,,,0 8 zero", syscall.EINVAL},
	{".,,,,0 8 zero", syscall.EINVAL},
	{"..,,,,0 8 zero", syscall.EINVAL},
	{strings.Repeat("n", 128) + ",,,,0 8 zero", errDmsetup},
	{"a," + strings.Repeat("u", 129) + ",,,0 8 zero", errDmsetup},
	{"a,,,,0 8 nope", syscall.EINVAL},
	{"a,,,,0 8 zero,16 8 zero", syscall.EINVAL},
	{"a,,,,0 8 linear $A 0;a,,,,0 8 linear /dev/mapper/a 0", syscall.EBUSY},
	{"a,u,,,0 8 linear $A 0;b,u,,,0 8 linear /dev/mapper/a 0", syscall.EBUSY},
	{"a,,,,0 8 linear /dev/mapper/a 0", syscall.ENOENT},
	{"a,,,,0 8 linear /dev/mapper/b 0;b,,,,0 8 zero", syscall.ENOENT},
	{"a,,,,0 64 linear $A 0;b,,,,0 65 linear /dev/mapper/a 0", syscall.EINVAL},
	{"a,,,,0 64 linear $B 0;b,,,,0 8 linear /dev/mapper/a 4", syscall.EINVAL},
	{"a,,,,0 64 crypt aes-xts-plain64 $K 0 $A 0 1 sector_size:4096;b,,,,0 8 linear /dev/mapper/a 4", syscall.EINVAL},
}

// stricterStacks are stacks that dmsetup takes, and this package refuses.
var stricterStacks = []struct {
	text string
	err  error
}{
	{"a b,,,,0 8 zero", ErrSyntax},
	{"a\\,b,,,,0 8 zero", ErrInvalid},
	{"a%b,,,,0 8 zero", ErrInvalid},
	{"a#b,,,,0 8 zero", ErrInvalid},
	{"a,u/v,,,0 8 zero", ErrInvalid},
	{"a,,x,,0 8 zero", ErrInvalid},
	{"a,,-1,,0 8 zero", ErrInvalid},
	{"a,,1048576,,0 8 zero", ErrInvalid},
	{"a,,,,#", ErrSyntax},
	{"low,,1,,0 512 linear $B 0;top,,2,rw,0 64 snapshot $A $M:1 N 8", ErrUnsupported},
	{"a,,,,0 8 zero;b,,,,0 8 zero", ErrInvalid},
	{"base,,,ro,0 8 linear $A 0;top,,,rw,0 8 linear /dev/mapper/base 0", syscall.EROFS},
	{"base,,4,ro,0 8 linear $A 0;top,,,rw,0 8 linear $M:4 0", syscall.EROFS},
}

// testMajor is the major number of device mapper in the cases.
const testMajor = 253

// parseStack parses a stack of the lists above and checks it against the
// devices.
func parseStack(t testing.TB, text string) (*Stack, error) {
	t.Helper()
	s, err := Parse([]byte(text), Options{DeviceMapperMajor: testMajor})
	if err != nil {
		return nil, err
	}
	sizes := make([]DeviceSize, len(s.Devices()))
	for i, d := range s.Devices() {
		sizes[i] = deviceSizes[d]
	}
	_, err = s.CheckDevices(sizes)
	return s, err
}

// inStack is withDevices for a stack.
func inStack(text, a, b string, major int) string {
	return strings.ReplaceAll(withDevices(text, a, b), "$M", fmt.Sprint(major))
}

func TestConcise(t *testing.T) {
	for _, tt := range acceptedStacks {
		text := inStack(tt.text, disk512, disk4096, testMajor)
		s, err := parseStack(t, text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		want := tt.printed
		if want == "" {
			want = tt.text
		}
		// The stack names a table as the text does, the kernel by its number.
		want = inStack(want, disk512, disk4096, testMajor)
		got := strings.ReplaceAll(s.Concise(), "/dev/mapper/base", fmt.Sprintf("%d:4", testMajor))
		if got != want {
			t.Errorf("%q is printed as %q", text, got)
		}
	}
}

func TestConciseRefused(t *testing.T) {
	for _, tt := range refusedStacks {
		text := inStack(tt.text, disk512, disk4096, testMajor)
		_, err := parseStack(t, text)
		if !sameKind(err, tt.err) {
			t.Errorf("%q: error %v, not %v", text, err, tt.err)
			continue
		}
		checkError(t, text, err)
	}
	for _, tt := range stricterStacks {
		text := inStack(tt.text, disk512, disk4096, testMajor)
		_, err := parseStack(t, text)
		if !errors.Is(err, tt.err) {
			t.Errorf("%q: error %v, not %v", text, err, tt.err)
			continue
		}
		checkError(t, text, err)
	}
}

// A second minor is ENXIO for the kernel, which says so only after it has made
// the first device.
func TestConciseRefusesSecondMinor(t *testing.T) {
	_, err := parseStack(t, "a,,5,,0 8 zero;b,,5,,0 8 linear /dev/mapper/a 0")
	if !errors.Is(err, syscall.EBUSY) {
		t.Errorf("error %v", err)
	}
}

// oddStack has each character that the concise format escapes, in a path that
// contains no others.
const oddStack, oddPath = `a,,,rw,0 8 linear /tmp/a\,b\;c\\d 0`, `/tmp/a,b;c\d`

func TestConciseEscapes(t *testing.T) {
	s, err := Parse([]byte(oddStack), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Devices(); len(got) != 1 || got[0] != oddPath {
		t.Errorf("devices %q", got)
	}
	if got := s.Concise(); got != oddStack {
		t.Errorf("printed as %s", got)
	}
	if got, want := s.Tables[0].String(), "0 8 linear "+oddPath+" 0\n"; got != want {
		t.Errorf("lines %q", got)
	}
}

// Each error says where it is.
func TestErrorMessages(t *testing.T) {
	for text, want := range map[string]string{
		"0 8 zero\n\n8 8 linear /dev/sda x": `line 3: linear: start "x": not a decimal number: invalid`,
		"0 8 zero\n9 8 zero":                "line 2: zero: start 9: gap, because the line before ends at 8: invalid",
		"0 8 zero\n7 8 zero":                "line 2: zero: start 7: overlap, because the line before ends at 8: invalid",
		"0 8 verity 1":                      "line 1: verity: 1 arguments, fewer than 10: invalid",
		"0 8 snapshot-merge a b P 8":        "line 1: snapshot-merge: target of device mapper: unsupported operation",
		"0 8 snapshot a b P 2":              `line 1: snapshot: chunk "2": less than 8 sectors: unsupported operation`,
		"0 8 a;b":                           "line 1: a;b: unknown target: invalid",
		"0 8 \x1b[31m":                      "line 1: target: control character 0x1b: invalid",
		"0 8 linear a\x7f 0":                "line 1: linear: argument 1: control character 0x7f: invalid",
		"0 8":                               "line 1: not START LENGTH TARGET: wrong syntax",
		"top,,,,0 8 zero,8 8 crypt aes-xts-plain64 :64:user:k 0 /dev/a 0 1 integrity:28:none": `table top: line 2: crypt: option "integrity:28:none": unsupported operation`,
		"0 8 crypt aes-cbc-essiv:sha256 " + hexKey + " 0 /dev/a 0":                            `line 1: crypt: cipher "aes-cbc-essiv:sha256": unsupported operation`,
		"0 8 crypt aes-xts-plain64 :64:logon:k 0 /dev/a 0":                                    "line 1: crypt: key: type logon, whose bytes a process cannot read: unsupported operation",
		"0 8 crypt aes-xts-plain64 " + hexKey + " 0 /dev/a 0":                                 "line 1: crypt: key: key in the text of a table",
		"0 8 crypt " + hexKey + " aes-xts-plain64 0 /dev/a 0":                                 "line 1: crypt: cipher (not shown): unsupported operation",
		"0 8 " + hexKey: "line 1: (not shown): unknown target: invalid",
		"a,,,,0 8 zero;" + strings.Repeat("n", 64) + " ,,,,0 8 zero": `name "` + strings.Repeat("n", 64) + `"...: has other characters than letters, digits and +-.:=@_: invalid`,
		"a,,;":           "table a: 3 fields, not NAME,UUID,MINOR,FLAGS,LINE: wrong syntax",
		"a,,,x,0 8 zero": `table a: flags "x": neither rw nor ro: wrong syntax`,
		"a,,,,0 8 zero;b,,,,0 8 linear /dev/mapper/c 0;c,,,,0 8 zero": `table b: line 1: linear: device "/dev/mapper/c": a later table: no such file or directory`,
		"a,,,,0 8 zero;b,,,,0 8 zero":                                 "table a: not used by a later table: invalid",
	} {
		_, err := Parse([]byte(text), Options{})
		if err == nil || err.Error() != want {
			t.Errorf("%q:\n got %v\nwant %s", text, err, want)
		}
	}
}

// The parts of an error are in its fields.
func TestErrorFields(t *testing.T) {
	_, err := Parse([]byte("top,,,,0 8 zero,8 8 linear /dev/sda x"), Options{})
	var e *StackError
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	if e.Table != "top" || e.Line != 2 || e.Target != "linear" || e.Argument != `start "x"` || !errors.Is(e.Err, ErrInvalid) {
		t.Errorf("error %+v", e)
	}
}

// Text in an error is truncated, and what may be a key is left out.
func TestQuoted(t *testing.T) {
	for text, want := range map[string]string{
		strings.Repeat("x", 64):               `"` + strings.Repeat("x", 64) + `"`,
		strings.Repeat("x", 65):               `"` + strings.Repeat("x", 64) + `"...`,
		"\x1b\n":                              `"\x1b\n"`,
		strings.Repeat("a", 20):               `"` + strings.Repeat("a", 20) + `"`,
		strings.Repeat("a", 20) + "za":        `"` + strings.Repeat("a", 20) + `za"`,
		strings.Repeat("f", 21):               "(not shown)",
		strings.Repeat("F0", 11):              "(not shown)",
		"z" + strings.Repeat("9", 21):         "(not shown)",
		strings.Repeat("9", 21) + "z":         "(not shown)",
		strings.Repeat("0123456789g", 3):      `"` + strings.Repeat("0123456789g", 3) + `"`,
		"/images/" + strings.Repeat("b", 32):  `"/images/` + strings.Repeat("b", 32) + `"`,
		"images/" + strings.Repeat("b", 32):   `"images/` + strings.Repeat("b", 32) + `"`,
		strings.Repeat("c", 32) + "/dev/a":    "(not shown)",
		"x /dev/a " + strings.Repeat("d", 32): "(not shown)",
	} {
		if got := quoted(text); got != want {
			t.Errorf("%s is quoted as %s", text, got)
		}
	}
}

// A path that a table can have stands for its file, and is read back.
func TestFileWord(t *testing.T) {
	for _, path := range []string{"/srv/a.img", "/srv/größe.img", `/srv/a,b;c\d.img`} {
		if word := FileWord(path, "image"); word != path {
			t.Errorf("%q stands for %q", word, path)
		}
		s, err := Parse([]byte("a,,,,"+Escape("0 8 linear "+path+" 0")), Options{})
		if err != nil {
			t.Errorf("%q: %v", path, err)
			continue
		}
		if got := s.Devices(); !slices.Equal(got, []string{path}) {
			t.Errorf("%q becomes %q", path, got)
		}
		s.Close()
	}
	for _, path := range []string{"", "/srv/a b", "/srv/a\nb", "/srv/a#b", "/srv/a\x7fb", "/srv/a\xffb", "/srv/à", "/dev/mapper/a"} {
		if word := FileWord(path, "image"); word != "image" {
			t.Errorf("%q stands for %q", word, path)
		}
	}
}
