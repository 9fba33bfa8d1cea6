package hint

import (
	"errors"
	"testing"
)

func TestRender(t *testing.T) {
	for hint, want := range map[string]string{
		"":                        "",
		"plain":                   "plain",
		"attach it with {shared}": "attach it with <shared|>",
		"use {sector_size=4096}, or {direct_io=auto} or off": "use <sector_size|=4096>, or <direct_io|=auto> or off",
		"chmod 600 /srv/{key=":                               "chmod 600 /srv/{key=",
		"chmod 600 /srv/{other}":                             "chmod 600 /srv/{other}",
	} {
		got := Render(hint, func(name, assigned string) string { return "<" + name + "|" + assigned + ">" })
		if got != want {
			t.Errorf("%q becomes %q, want %q", hint, got, want)
		}
		if HasSettings(hint) != (got != hint) {
			t.Errorf("%q: settings %v", hint, HasSettings(hint))
		}
	}
}

func TestAdd(t *testing.T) {
	if Add(nil, "do") != nil {
		t.Error("a hint for no error")
	}
	cause := errors.New("cause")
	var h *Error
	if err := Add(cause, "use %d", 3); !errors.Is(err, cause) || err.Error() != "cause" || !errors.As(err, &h) || h.Hint != "use 3" {
		t.Errorf("%v, hint %+v", err, h)
	}
}
