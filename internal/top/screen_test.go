package top

import "testing"

func TestOnScreen(t *testing.T) {
	const text = "one\nzwölf\nthree\n"
	if got, want := onScreen(text, 3, 4), "\x1b[Hone\x1b[K\r\nzwöl\x1b[K\r\n\x1b[J"; got != want {
		t.Errorf("on a small screen %q, want %q", got, want)
	}
	if got, want := onScreen(text, 24, 80), "\x1b[Hone\x1b[K\r\nzwölf\x1b[K\r\nthree\x1b[K\r\n\x1b[J"; got != want {
		t.Errorf("on a large screen %q, want %q", got, want)
	}
}
