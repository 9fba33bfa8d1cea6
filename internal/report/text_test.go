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
