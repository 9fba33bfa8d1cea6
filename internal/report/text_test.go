package report

import "testing"

func TestOneLine(t *testing.T) {
	for text, want := range map[string]string{
		"/srv/disk image": "/srv/disk image", "/srv/платёж.img": "/srv/платёж.img", `a"b`: `a"b`,
		"a\nb": `a\nb`, "a\"\x00": `a"\x00`, "\xff": `\xff`, "a\u202eb": `a\u202eb`,
	} {
		if got := OneLine(text); got != want {
			t.Errorf("OneLine(%q) is %q, want %q", text, got, want)
		}
	}
}

func TestCount(t *testing.T) {
	for n, want := range []string{"0 devices", "1 device", "2 devices"} {
		if got := Count(n, "device"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
