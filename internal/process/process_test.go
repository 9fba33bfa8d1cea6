package process

import "testing"

func TestParseStartTime(t *testing.T) {
	const rest = " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20"
	for name, stat := range map[string]string{
		"plain":                  "1 (cat)" + rest,
		"spaces":                 "1 (a b c)" + rest,
		"parentheses and digits": "1 (x) S 1 2 (y)" + rest,
	} {
		if n, err := parseStartTime([]byte(stat)); err != nil || n != 4242 {
			t.Errorf("%s: %d, error %v; want 4242", name, n, err)
		}
	}
	for _, stat := range []string{"", "1 (cat) S 1", "1 (cat)"} {
		if n, err := parseStartTime([]byte(stat)); err == nil {
			t.Errorf("%q: %d without an error", stat, n)
		}
	}
}

func FuzzParseStartTime(f *testing.F) {
	f.Add([]byte("1 (cat) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20"))
	f.Fuzz(func(_ *testing.T, stat []byte) { _, _ = parseStartTime(stat) })
}
