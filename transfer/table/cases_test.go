package table

import (
	"errors"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// The devices in the cases. The kernel test replaces them by real ones of the
// same sizes.
const (
	disk512, disk4096 = "/dev/disk512", "/dev/disk4096"
	sectorsOfDisks    = 16384
)

// deviceSizes are the sizes of the devices in the cases.
var deviceSizes = map[string]DeviceSize{
	disk512:  {sectorsOfDisks, 512},
	disk4096: {sectorsOfDisks, 4096},
}

// keyOf64 is the name of a key that the kernel test has added.
const keyOf64 = ":64:user:ublk-loop:test"

// hexKey is a key of 64 bytes with different halves.
var hexKey = strings.Repeat("0", 64) + strings.Repeat("1f", 32)

// errDmsetup stands for an error of dmsetup before it asks the kernel.
var errDmsetup = ErrSyntax

// accepted are tables that the kernel accepts too, with the lines that it prints. If
// printed is empty, the kernel prints the table unchanged. $A and $B are disks with
// blocks of 512 and 4096 bytes, $K is a key.
var accepted = append(verityAccepted, []printedTable{
	{"0 8 linear $A 0", ""},
	{"0 8 linear $A 010", "0 8 linear $A 10"},
	{"00 08 linear $A 16376", "0 8 linear $A 16376"},
	{"  0\t8 \v\f linear   $A 0\t\r\n", "0 8 linear $A 0"},
	{"# comment\n\n  # another\n0 8 linear $A 0 # 1\n", "0 8 linear $A 0"},
	{"#a,b\n0 8 linear $A 0", "0 8 linear $A 0"},
	{"0 8 linear $A 0# 1", "0 8 linear $A 0"},
	{"0 8 linear $A 0\n8 1 linear $A 100\n9 7 linear $A 200", ""},
	{"0 8 linear $B 8", ""},
	{"0 8 linear $B 0\n8 8 linear $A 3", ""},
	{"0 16 linear $A 0\n16 8 linear $B 16", ""},
	{"0 16 striped 2 8 $A 0 $A 100", ""},
	{"0 16 striped 02 08 $A 0 $B 8", "0 16 striped 2 8 $A 0 $B 8"},
	{"0 8 striped 1 8 $A 0", ""},
	{"0 8 striped 1 2 $A 3", ""},
	{"0 18 striped 2 9 $A 0 $A 9", ""},
	{"0 6 striped 3 1 $A 0 $A 0 $A 0", ""},
	{"0 24 striped 2 12 $A 0 $A 0\n24 24 linear $B 0", ""},
	{"0 8 zero", "0 8 zero "},
	{"0 8 zero #", "0 8 zero "},
	{"0 18014398509481983 zero", "0 18014398509481983 zero "},
	{"0 8 error", "0 8 error "},
	{"0 8 crypt aes-xts-plain64 $K 0 $A 0", ""},
	{"0 8 crypt aes-xts-plain $K 0 $A 0", ""},
	{"0 8 crypt aes-xts-plain64 $K 3 $A 7", ""},
	{"0 8 crypt aes-xts-plain64 $K 18446744073709551615 $A 0", ""},
	{"0 8 crypt aes-xts-plain64 $K 0 $A 0 0", "0 8 crypt aes-xts-plain64 $K 0 $A 0"},
	{"0 8 crypt aes-xts-plain64 $K 0 $A 0 01 allow_discards", "0 8 crypt aes-xts-plain64 $K 0 $A 0 1 allow_discards"},
	{"0 8 crypt aes-xts-plain64 $K 0 $A 0 1 ALLOW_Discards", "0 8 crypt aes-xts-plain64 $K 0 $A 0 1 allow_discards"},
	{"0 8 crypt aes-xts-plain64 $K 0 $A 0 2 allow_discards allow_discards", "0 8 crypt aes-xts-plain64 $K 0 $A 0 1 allow_discards"},
	{
		"0 8 crypt aes-xts-plain64 $K 0 $A 0 9" + strings.Repeat(" high_priority", 9),
		"0 8 crypt aes-xts-plain64 $K 0 $A 0 1 high_priority",
	},
	{"0 8 crypt aes-xts-plain64 $K 0 $A 0 1 sector_size:512", "0 8 crypt aes-xts-plain64 $K 0 $A 0"},
	{"0 8 crypt aes-xts-plain64 $K 0 $A 0 1 sector_size:1024", ""},
	{"0 8 crypt aes-xts-plain64 $K 0 $A 0 1 sector_size:04096", "0 8 crypt aes-xts-plain64 $K 0 $A 0 1 sector_size:4096"},
	{"0 8 crypt aes-xts-plain64 $K 8 $A 0 2 iv_large_sectors sector_size:4096", "0 8 crypt aes-xts-plain64 $K 8 $A 0 2 sector_size:4096 iv_large_sectors"},
	{
		"0 8 crypt aes-xts-plain64 $K 0 $A 0 5 no_write_workqueue No_Read_Workqueue submit_from_crypt_cpus high_priority same_cpu_crypt",
		"0 8 crypt aes-xts-plain64 $K 0 $A 0 5 same_cpu_crypt high_priority submit_from_crypt_cpus no_read_workqueue no_write_workqueue",
	},
	{"0 16 crypt aes-xts-plain64 $K 0 $B 0", ""},
	{"0 16384 snapshot $A $B P 8", ""},
	{"0 8 snapshot $A $B PO 08", "0 8 snapshot $A $B PO 8"},
	{"0 8 snapshot $A $B N 2048", ""},
	{"0 8 snapshot $A $B P 8 0", "0 8 snapshot $A $B P 8"},
	{"0 8 snapshot $A $B N 1024 1 discard_zeroes_cow", ""},
	// The origin is only read. If a later line wrote to it, dmsetup would print other memory for
	// the origin on Linux 6.12.
	{"0 8 snapshot $A $B N 16\n8 8 zero", "0 8 snapshot $A $B N 16\n8 8 zero "},
}...)

// printedTable is a table, and the lines that the kernel prints of it.
type printedTable struct{ text, printed string }

// refusedTable is a table, and why it is refused.
type refusedTable struct {
	text string
	err  error
}

// refused are tables that the kernel refuses too, with the same errno.
var refused = append(verityRefused, []refusedTable{
	{"x", errDmsetup},
	{"0", errDmsetup},
	{"0 8", errDmsetup},
	{"0x0 8 zero", errDmsetup},
	{"0 8 zero\nx", errDmsetup},
	{"0 8 nope", syscall.EINVAL},
	{"0 8 LINEAR $A 0", syscall.EINVAL},
	{"0 8 zero#x", syscall.EINVAL},
	{"0 0 zero", syscall.EINVAL},
	{"8 8 zero", syscall.EINVAL},
	{"0 8 zero\n16 8 zero", syscall.EINVAL},
	{"0 8 zero\n4 8 zero", syscall.EINVAL},
	{"8 8 zero\n0 8 zero", syscall.EINVAL},
	{"0 18014398509481984 zero", syscall.EINVAL},
	{"0 18446744073709551615 zero", syscall.EINVAL},
	{"0 8 zero\n8 18446744073709551608 zero", syscall.EINVAL},
	{"0 8 zero x", syscall.EINVAL},
	{"0 8 linear $A", syscall.EINVAL},
	{"0 8 linear $A 0 0", syscall.EINVAL},
	{"0 8 linear $A +1", syscall.EINVAL},
	{"0 8 linear $A -1", syscall.EINVAL},
	{"0 8 linear $A 0x8", syscall.EINVAL},
	{`0 8 linear $A \0`, syscall.EINVAL},
	{`0 8 linear $A 0\`, syscall.EINVAL},
	{`0 8 linear /tmp/a\ b 0`, syscall.EINVAL},
	{"0 8 linear $A 16377", syscall.EINVAL},
	{"0 8 linear $A 16384", syscall.EINVAL},
	{"0 8 linear $A 18446744073709551615", syscall.EINVAL},
	{"0 8 linear 4096:0 0", syscall.EOVERFLOW},
	{"0 8 linear 0:1048576 0", syscall.EOVERFLOW},
	{"0 8 linear $B 4", syscall.EINVAL},
	{"0 4 linear $B 0", syscall.EINVAL},
	{"0 4 zero\n4 8 linear $B 0", syscall.EINVAL},
	{"0 4 zero\n4 8 linear $B 0\n12 4 zero", syscall.EINVAL},
	{"0 8 linear $B 0\n8 4 linear $A 0", syscall.EINVAL},
	{"0 8 linear /tmp/x\xa0y 0", syscall.EINVAL},
	{"0 16 striped", syscall.EINVAL},
	{"0 16 striped 0 8", syscall.EINVAL},
	{"0 16 striped x 8", syscall.EINVAL},
	{"0 16 striped 0x2 8 $A 0 $A 8", syscall.EINVAL},
	{"0 16 striped 4294967298 8 $A 0 $A 8", syscall.EINVAL},
	{"0 16 striped 2 4294967304 $A 0 $A 8", syscall.EINVAL},
	{"0 16 striped 2 0 $A 0 $A 8", syscall.EINVAL},
	{"0 17 striped 2 8 $A 0 $A 8", syscall.EINVAL},
	{"0 18 striped 2 8 $A 0 $A 9", syscall.EINVAL},
	{"0 16 striped 2 8 $A 0", syscall.EINVAL},
	{"0 16 striped 2 8 $A 0 $A", syscall.EINVAL},
	{"0 16 striped 2 8 $A 0 $A 8 9", syscall.EINVAL},
	{"0 16 striped 2 8 $A 0 $A x", syscall.EINVAL},
	{"0 16 striped 2 8 $A 0 $A 16377", syscall.EINVAL},
	{"0 16 striped 2 8 $A 4 $B 8", syscall.EINVAL},
	{"0 24 striped 2 12 $A 0 $B 0", syscall.EINVAL},
	{"0 16 striped 4 4 $B 0 $B 8 $B 16 $B 24", syscall.EINVAL},
	{"0 8 error $A x", syscall.EINVAL},
	{"0 8 error $A 16377", syscall.EINVAL},
	{"0 8 error $B 4", syscall.EINVAL},
	{"0 8 crypt", syscall.EINVAL},
	{"0 8 crypt aes-xts-plain64 $K 0 $A", syscall.EINVAL},
	{"0 8 crypt aes-xts-plain64 - 0 $A 0", syscall.EINVAL},
	{"0 8 crypt aes-xts-plain64 :64:nope:a 0 $A 0", syscall.EINVAL},
	{"0 8 crypt aes-xts-plain64 :64:user: 0 $A 0", syscall.EINVAL},
	{"0 8 crypt aes-xts-plain64 :64:user 0 $A 0", syscall.EINVAL},
	{"0 8 crypt aes-xts-plain64 :64 0 $A 0", syscall.EINVAL},
	{"0 8 crypt aes-xts-plain64 :x:user:ublk-loop:test 0 $A 0", syscall.EINVAL},
	{"0 8 crypt aes-xts-plain64 zz$H 0 $A 0", syscall.EINVAL},
	{"0 8 crypt aes-xts-plain64 $H00 0 $A 0", syscall.EINVAL},
	{"0 8 crypt aes-xts-plain64 $K x $A 0", syscall.EINVAL},
	{"0 8 crypt aes-xts-plain64 $K 0 $A x", syscall.EINVAL},
	{"0 8 crypt aes-xts-plain64 $K 0 $A 0 x", syscall.EINVAL},
	{"0 8 crypt aes-xts-plain64 $K 0 $A 0 +1 allow_discards", syscall.EINVAL},
	{"0 8 crypt aes-xts-plain64 $K 0 $A 0 2 allow_discards", syscall.EINVAL},
	{"0 8 crypt aes-xts-plain64 $K 0 $A 0 10" + strings.Repeat(" allow_discards", 10), syscall.EINVAL},
	{"0 8 crypt aes-xts-plain64 $K 0 $A 0 1 nope", syscall.EINVAL},
	{"0 8 crypt aes-xts-plain64 $K 0 $A 0 1 allow_discards:1", syscall.EINVAL},
	{"0 8 crypt aes-xts-plain64 $K 0 $A 0 1 sector_size:256", syscall.EINVAL},
	{"0 8 crypt aes-xts-plain64 $K 0 $A 0 2 sector_size:256 sector_size:512", syscall.EINVAL},
	{"0 9 crypt aes-xts-plain64 $K 0 $A 0 2 sector_size:4096 sector_size:512", syscall.EINVAL},
	{"0 8 crypt aes-xts-plain64 $K 0 $A 0 1 sector_size:1536", syscall.EINVAL},
	{"0 16 crypt aes-xts-plain64 $K 0 $A 0 1 sector_size:8192", syscall.EINVAL},
	{"0 8 crypt aes-xts-plain64 $K 0 $A 0 1 sector_size:+4096", syscall.EINVAL},
	{"0 8 crypt aes-xts-plain64 $K 0 $A 0 1 SECTOR_SIZE:4096", syscall.EINVAL},
	{"0 8 crypt aes-xts-plain64 $K 4 $A 0 1 sector_size:4096", syscall.EINVAL},
	{"0 9 crypt aes-xts-plain64 $K 0 $A 0 1 sector_size:4096", syscall.EINVAL},
	{"0 8 crypt aes-xts-plain64 $K 0 $A 3 1 sector_size:4096", syscall.EINVAL},
	{"0 1 zero\n1 8 crypt aes-xts-plain64 $K 0 $A 0 1 sector_size:4096", syscall.EINVAL},
	{"0 12 crypt aes-xts-plain64 $K 0 $B 0", syscall.EINVAL},
	{"0 8 snapshot $A $B P", syscall.EINVAL},
	{"0 8 snapshot $A $B X 8", syscall.EINVAL},
	{"0 8 snapshot $A $B PX 8", syscall.EINVAL},
	{"0 8 snapshot $A $B P x", syscall.EINVAL},
	{"0 8 snapshot $A $B P 12", syscall.EINVAL},
	{"0 8 snapshot $A $B N 0", syscall.EINVAL},
	{"0 8 snapshot $A $B P 8 1", syscall.EINVAL},
	{"0 8 snapshot $A $B N 1024 1 nope", syscall.EINVAL},
	{"0 8 snapshot $A $A P 8", syscall.EINVAL},
	{"0 16392 snapshot $A $B P 8", syscall.EINVAL},
}...)

// stricter are tables that the kernel accepts and this package refuses: the tables in the
// last section of docs/tables.md, and features that this package lacks.
var stricter = append(verityStricter, []refusedTable{
	{"", ErrSyntax},
	{"\n# comment\n", ErrSyntax},
	{"0 8zero", ErrSyntax},
	{"+0 8 zero", ErrSyntax},
	{"-0 8 zero", ErrSyntax},
	{"0 8 linear /tmp/\x01 0", ErrInvalid},
	{"0 16 striped +2 +8 $A 0 $A 8", ErrInvalid},
	{"0 16 striped 2 4 $B 0 $B 8", ErrInvalid},
	{"0 8 error x", ErrInvalid},
	{"0 8 error a b c", ErrInvalid},
	{"0 8 crypt aes-xts-plain64 $H0 0 $A 0", ErrInvalid},
	{"0 8 crypt aes-xts-plain64 $K 0 $A 0 0 surplus", ErrInvalid},
	{"0 8 crypt aes-xts-plain64 $K 0 $A 0 1 allow_discards surplus", ErrInvalid},
	{"0 8 crypt aes-xts-plain64 $K 18446744073709551616 $A 0", ErrInvalid},
	{"0 8 crypt aes-xts-plain64 $K 0 $A 0 1 sector_size:66048", ErrInvalid},
	{"0 8 crypt aes-xts-plain64 $K 0 $A 0 2 sector_size:4096 sector_size:512", ErrInvalid},
	{"0 8 crypt aes-xts-plain64 $K 0 $A 0 4294967297 allow_discards", ErrInvalid},
	{"0 1 zero\n1 8 crypt aes-xts-plain64 $K 0 $A 0 1 sector_size:4096\n9 7 zero", ErrInvalid},
	{"0 8 crypt capi:xts(aes)-plain64 $K 0 $A 0", ErrUnsupported},
	{"0 8 crypt aes:1-xts-plain64 $K 0 $A 0", ErrUnsupported},
	{"0 8 crypt aes-xts-plain64 $K 0 $A 0 1 integrity:28:none", ErrUnsupported},
	{"0 8 crypt aes-xts-plain64 $K 0 $A 0 1 integrity_key_size:32", ErrUnsupported},
	{"0 8 crypt aes-xts-plain64 :48:user:ublk-loop:test48 0 $A 0", ErrUnsupported},
	{"0 8 snapshot-origin $A", ErrUnsupported},
	{"0 8 snapshot $A $B p 8", ErrInvalid},
	{"0 8 snapshot $A $B NX 8", ErrInvalid},
	{"0 8 snapshot $A $B P 0", ErrInvalid},
	{"0 8 snapshot $A $B N 4096", ErrLimit},
	{"0 8 snapshot $A $B P 8 0 surplus", ErrInvalid},
	{"0 8 snapshot $A $B N 1024 2 discard_zeroes_cow discard_zeroes_cow", ErrInvalid},
	{"0 8 snapshot $A $B N 1024 2 discard_zeroes_cow discard_passdown_origin", ErrUnsupported},
	{"0 8 zero\n8 8 snapshot $A $B P 8", ErrUnsupported},
}...)

// tooLargeStart has a START that Linux up to 6.18 takes modulo 2^64, and that 7.3 refuses.
const tooLargeStart = "0 8 linear $A 18446744073709551616"

// sameKind reports whether an error has the errno that is wanted. ErrSyntax is
// also EINVAL, but another kind.
func sameKind(err, want error) bool {
	return errors.Is(err, want) && errors.Is(err, ErrSyntax) == errors.Is(want, ErrSyntax)
}

// parseCase parses a table of the lists above and checks it against the
// devices.
func parseCase(t testing.TB, text string) (*Stack, error) {
	t.Helper()
	s, err := Parse([]byte(text), Options{KeysInText: true})
	if err != nil {
		return nil, err
	}
	t.Cleanup(s.Close)
	var sizes []DeviceSize
	for _, d := range s.Devices() {
		size, ok := deviceSizes[d]
		if !ok {
			t.Fatalf("%q: device %s", text, d)
		}
		sizes = append(sizes, size)
	}
	_, err = s.CheckDevices(sizes)
	return s, err
}

// withDevices replaces the devices and keys in a case.
func withDevices(text, a, b string) string {
	return strings.NewReplacer("$A", a, "$B", b, "$K", keyOf64, "$H", hexKey).Replace(text)
}

func TestAccepted(t *testing.T) {
	for _, tt := range accepted {
		text := withDevices(tt.text, disk512, disk4096)
		s, err := parseCase(t, text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		want := tt.printed
		if want == "" {
			want = tt.text
		}
		if got := s.Tables[0].String(); got != withDevices(want, disk512, disk4096)+"\n" {
			t.Errorf("%q is printed as %q", text, got)
		}
	}
}

// escapes matches what strconv.QuoteToASCII writes for other characters.
var escapes = regexp.MustCompile(`\\(x..|u....|U........|.)`)

// checkError checks the promises for every error: one line, with the place, and
// without a key.
func checkError(t *testing.T, text string, err error) {
	t.Helper()
	var e *StackError
	if !errors.As(err, &e) {
		t.Errorf("%q: %T is not *StackError", text, err)
	}
	message := err.Error()
	if strings.ContainsFunc(message, func(r rune) bool { return r < ' ' || r > '~' }) || len(message) > 400 {
		t.Errorf("%q: message is no printable line: %q", text, message)
	}
	// A word of maxDigits digits is too short for a key, and a path can have longer ones.
	for _, part := range []string{hexKey[:maxDigits+1], hexKey[len(hexKey)-maxDigits-1:]} {
		before, _, found := strings.Cut(escapes.ReplaceAllString(message, "_"), part)
		if found && !strings.Contains(before[strings.LastIndexAny(before, ` "`)+1:], "/") {
			t.Errorf("%q: key in %q", text, message)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, tt := range refused {
		text := withDevices(tt.text, disk512, disk4096)
		_, err := parseCase(t, text)
		if !sameKind(err, tt.err) {
			t.Errorf("%q: error %v, not %v", text, err, tt.err)
			continue
		}
		checkError(t, text, err)
	}
}

func TestTooLargeStart(t *testing.T) {
	text := withDevices(tooLargeStart, disk512, disk4096)
	_, err := parseCase(t, text)
	if !sameKind(err, syscall.EINVAL) {
		t.Fatalf("%q: error %v, not %v", text, err, syscall.EINVAL)
	}
	checkError(t, text, err)
}

func TestStricterThanTheKernel(t *testing.T) {
	for _, tt := range stricter {
		text := withDevices(tt.text, disk512, disk4096)
		_, err := parseCase(t, text)
		if !errors.Is(err, tt.err) {
			t.Errorf("%q: error %v, not %v", text, err, tt.err)
		}
		if err != nil {
			checkError(t, text, err)
		}
	}
}
