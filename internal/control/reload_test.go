package control

import (
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/loop"
)

// A reload is refused if the device has got other tables than its client knows: the client may have given up, and made another
// one. Names that are not UTF-8 do not matter.
func TestLateReload(t *testing.T) {
	s := newStand(t)
	path := file(t, "")
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	s.devices.put(0, loop.Status{ID: 0, Table: "0 8 linear /\xe9\xff 0"})
	c := client.New(s.socket)
	devices, err := c.Devices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	was, table := devices[0], "0 8 linear "+path+" 0"
	if made, err := c.Reload(t.Context(), &was, table, []*os.File{f}); err != nil || made.Files[0].File != path {
		t.Errorf("reload: %+v, error %v", made, err)
	}
	s.devices.put(0, loop.Status{ID: 0, Table: table})
	if made, err := c.Reload(t.Context(), &was, table, []*os.File{f}); !errors.Is(err, unix.ESTALE) || !client.HasStatus(err, http.StatusPreconditionFailed) {
		t.Errorf("late reload: %+v, error %v", made, err)
	}
	was.Table = "" // of a client that does not know the tables
	if _, err := c.Reload(t.Context(), &was, table, []*os.File{f}); err != nil {
		t.Errorf("reload of any tables: error %v", err)
	}
}

// If-Match has one tag, a list of them, or an asterisk.
func TestMatches(t *testing.T) {
	const table = "0 8 linear /a 0"
	tag := (&client.Device{Table: table}).TableTag()
	other := (&client.Device{Table: table + "8"}).TableTag()
	for _, tt := range []struct {
		lines []string
		want  bool
	}{
		{nil, true},
		{[]string{"*"}, true},
		{[]string{" * "}, true},
		{[]string{tag}, true},
		{[]string{other}, false},
		{[]string{other + ", " + tag}, true},
		{[]string{tag + "," + other}, true},
		{[]string{other + " ,\t, " + tag}, true},
		{[]string{other, tag}, true},
		{[]string{`"a,b", ` + tag}, true},
		{[]string{`"a, ` + tag[1:]}, false},
		{[]string{"W/" + tag}, false},
		{[]string{"W/" + tag + ", " + tag}, true},
		{[]string{other + " " + tag}, false},
		{[]string{strings.Trim(tag, `"`)}, false},
		{[]string{tag[:len(tag)-1]}, false},
		{[]string{`"`}, false},
		{[]string{"*, " + tag}, false},
		{[]string{""}, false},
	} {
		matches := matches(tt.lines)
		if got := matches == nil || matches(table); got != tt.want {
			t.Errorf("%q: %v, want %v", tt.lines, got, tt.want)
		}
	}
}
