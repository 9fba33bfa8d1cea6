package bytesize

import (
	"math"
	"testing"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		text string
		want uint64
	}{
		{"0", 0},
		{"1", 1},
		{"010", 10},
		{"512", 512},
		{"1K", 1 << 10},
		{"1k", 1 << 10},
		{"1KiB", 1 << 10},
		{"1kib", 1 << 10},
		{"1KB", 1000},
		{"1kB", 1000},
		{"3M", 3 << 20},
		{"3MiB", 3 << 20},
		{"3MB", 3e6},
		{"4G", 4 << 30},
		{"4GiB", 4 << 30},
		{"4GB", 4e9},
		{"5T", 5 << 40},
		{"5TiB", 5 << 40},
		{"5TB", 5e12},
		{"6P", 6 << 50},
		{"6PB", 6e15},
		{"7E", 7 << 60},
		{"7EB", 7e18},
		{"0E", 0},
		{"9223372036854775807", math.MaxInt64},
		{"8796093022207M", 8796093022207 << 20},
	} {
		got, err := Parse(tt.text)
		if err != nil || got != tt.want {
			t.Errorf("Parse(%q) is %d, %v, want %d", tt.text, got, err, tt.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", "empty"},
		{"-1", "negative"},
		{"-", "negative"},
		{"-1K", "negative"},
		{"K", "not a number of bytes"},
		{"x", "not a number of bytes"},
		{" 1", "not a number of bytes"},
		{"+1", "not a number of bytes"},
		{".5G", "not a number of bytes"},
		{"٣", "not a number of bytes"},
		{"1Q", `unknown unit "Q"`},
		{"1B", `unknown unit "B"`},
		{"1 ", `unknown unit " "`},
		{"1K ", `unknown unit "K "`},
		{"1.5G", "not a whole number: take a smaller unit"},
		{"1,5G", "not a whole number: take a smaller unit"},
		{"0x10", `unknown unit "x10"`},
		{"1KiBi", `unknown unit "KiBi"`},
		{"1Ki", `unknown unit "Ki"`},
		{"1\x0b", `unknown unit "\v"`},
		{"1\x00", `unknown unit "\x00"`},
		{"9223372036854775808", "2^63 bytes or more"},
		{"8E", "2^63 bytes or more"},
		{"9E", "2^63 bytes or more"},
		{"18446744073709551616", "2^63 bytes or more"},
		{"16E", "2^63 bytes or more"},
		{"17E", "2^63 bytes or more"},
		{"99999999999999999999999999", "2^63 bytes or more"},
		{"9007199254740992K", "2^63 bytes or more"},
	} {
		if got, err := Parse(tt.text); err == nil || err.Error() != tt.want {
			t.Errorf("Parse(%q) is %d, %v, want the error %q", tt.text, got, err, tt.want)
		}
	}
}

func TestFormat(t *testing.T) {
	for _, tt := range []struct {
		bytes uint64
		want  string
	}{
		{0, "0"},
		{1, "1"},
		{1000, "1000"},
		{1023, "1023"},
		{1024, "1K"},
		{1025, "1025"},
		{1536, "1536"},
		{1 << 20, "1M"},
		{5 << 29, "2560M"},
		{3 << 40, "3T"},
		{1 << 60, "1E"},
		{math.MaxInt64, "9223372036854775807"},
	} {
		if got := Format(tt.bytes); got != tt.want {
			t.Errorf("Format(%d) is %q, want %q", tt.bytes, got, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"", "0", "1K", "1KiB", "1KB", "-1", "1Q", "8E", "9223372036854775808", "00001e"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		bytes, err := Parse(text)
		if err != nil {
			return
		}
		if bytes > math.MaxInt64 {
			t.Fatalf("Parse(%q) is %d", text, bytes)
		}
		again, err := Parse(Format(bytes))
		if err != nil || again != bytes {
			t.Fatalf("Parse(%q) is %d, which prints as %q, which is %d, %v", text, bytes, Format(bytes), again, err)
		}
	})
}
