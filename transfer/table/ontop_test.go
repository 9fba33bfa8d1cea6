package table

import (
	"errors"
	"testing"
)

// A snapshot on top has the format and chunk of the last one, which becomes read-only. A last table that
// encrypts stays on top.
func TestOnTop(t *testing.T) {
	const one = "layer1,,,ro,0 64 snapshot /a /b PO 8 1 discard_zeroes_cow;" +
		"layer2,,,rw,0 64 snapshot /dev/mapper/layer1 /c PO 8 1 discard_zeroes_cow"
	for text, want := range map[string]string{
		"0 64 snapshot /a /b PO 8 1 discard_zeroes_cow": one,
		one: one[:len(one)-len("rw,0 64 snapshot /dev/mapper/layer1 /c PO 8 1 discard_zeroes_cow")] +
			"ro,0 64 snapshot /dev/mapper/layer1 /c PO 8 1 discard_zeroes_cow;layer3,,,rw,0 64 snapshot /dev/mapper/layer2 /c PO 8 1 discard_zeroes_cow",
		"top,u,3,rw,0 64 snapshot /a /b P 8": "top,u,3,ro,0 64 snapshot /a /b P 8;layer1,,,rw,0 64 snapshot /dev/mapper/top /c P 8",
		"0 64 snapshot /a /b N 8":            "",
		"0 64 linear /a 0":                   "",
		"0 64 snapshot /a /b P 8\n64 8 zero": "",
		"base,,,rw,0 64 snapshot /a /b P 8;layer1,,,rw,0 32 crypt aes-xts-plain64 :64:user:k 8 /dev/mapper/base 16 1 allow_discards": "base,,,ro,0 64 snapshot /a /b P 8;" +
			"layer2,,,rw,0 64 snapshot /dev/mapper/base /c P 8;layer1,,,rw,0 32 crypt aes-xts-plain64 :64:user:k 8 /dev/mapper/layer2 16 1 allow_discards",
		"0 32 crypt aes-xts-plain64 :64:user:k 0 /a 16":                                                   "",
		"base,,,rw,0 64 linear /a 0;top,,,rw,0 32 crypt aes-xts-plain64 :64:user:k 0 /dev/mapper/base 16": "",
	} {
		s, err := Parse([]byte(text), Options{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.OnTop("/c")
		if got != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s:\n got %s, %v\nwant %s", text, got, err, want)
		}
		if s.Text() != text && s.Text() != text+"\n" && err == nil {
			t.Errorf("%s has become %s", text, s.Text())
		}
	}
}

// A snapshot of the file of a linear line has the length and the name of the line's table. The snapshot
// of an encrypted file is below the line that encrypts, and has the whole file. Other tables do not
// become an origin.
func TestAsOrigin(t *testing.T) {
	for text, want := range map[string]string{
		"0 64 linear /a 0":                                                   "0 64 snapshot /a /c P 16\n",
		"top,u,3,rw,0 64 linear /a 0":                                        "top,u,3,rw,0 64 snapshot /a /c P 16",
		"0 64 linear /a 8":                                                   "",
		"0 64 linear /a 0\n64 8 zero":                                        "",
		"0 64 snapshot /a /b P 8":                                            "",
		"0 64 crypt aes-xts-plain64 :64:user:k 4 /a 16":                      "layer1,,,rw,0 80 snapshot /a /c P 16;top,,,rw,0 64 crypt aes-xts-plain64 :64:user:k 4 /dev/mapper/layer1 16",
		"layer1,u,3,rw,0 64 crypt aes-xts-plain64 :64:user:k 4 /a 0":         "layer2,,,rw,0 64 snapshot /a /c P 16;layer1,u,3,rw,0 64 crypt aes-xts-plain64 :64:user:k 4 /dev/mapper/layer2 0",
		"0 64 crypt aes-xts-plain64 :64:user:k 4 /a 16\n64 8 zero":           "",
		"base,,,rw,0 64 linear /a 0;top,,,rw,0 64 linear /dev/mapper/base 0": "",
	} {
		s, err := Parse([]byte(text), Options{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.AsOrigin("/c", 16)
		if got != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s:\n got %q, %v\nwant %q", text, got, err, want)
		}
	}
}
