package oci

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/oci/below"
)

// A configuration that asks for no image passes unchanged. An invalid configuration and a
// request that fails give no output.
func TestPrecreate(t *testing.T) {
	const image = `{"annotations":{"dev.ublk-loop.rootfs.image":"/nothing"}}`
	const joins = `{"annotations":{"dev.ublk-loop.rootfs.image":"/nothing"},"linux":{"namespaces":[{"type":"mount","path":"/proc/1/ns/mnt"}]}}`
	h := &Hooks{Maker: Maker{Settings: &Settings{Socket: filepath.Join(t.TempDir(), "none"), AttachTimeout: time.Minute}}, Program: "/x"}
	for _, tt := range []struct {
		in, out string
		fails   func(error) bool
	}{
		{`{ "a":1}  `, `{ "a":1}  `, nil},
		{plainConfig, plainConfig, nil},
		{image, "", func(err error) bool { return errors.Is(err, below.ErrNotAllowed) }},
		{joins, "", func(err error) bool { return errors.Is(err, unix.EOPNOTSUPP) }},
		{`{`, "", func(err error) bool { return err != nil }},
		{`{"annotations":3}`, "", func(err error) bool { return err != nil }},
		{`"` + strings.Repeat("x", configLimit), "", func(err error) bool { return errors.Is(err, unix.EFBIG) }},
	} {
		var out bytes.Buffer
		err := h.Precreate(strings.NewReader(tt.in), &out)
		if out.String() != tt.out || tt.fails == nil && err != nil || tt.fails != nil && !tt.fails(err) {
			t.Errorf("%.80s gives %.80s, error %v", tt.in, out.String(), err)
		}
	}
}

// The runtime calls the later hooks after the existing hooks.
func TestTell(t *testing.T) {
	const (
		name   = "N"
		before = `{"hooks":{"poststop":[{"path":"/other","x":1.50}],"prestart":[]},"root":{"path":"rootfs","readonly":true}}`
		want   = `{"hooks":{"poststart":[{"path":"/bin/x","args":["ublk-loop","hook","poststart","N"]}],` +
			`"poststop":[{"path":"/other","x":1.50},{"path":"/bin/x","args":["ublk-loop","hook","poststop","N"]}],` +
			`"prestart":[]},"root":{"path":"/run/ublk-loop-oci/hooks/N/rootfs","readonly":true}}` + "\n"
	)
	h := &Hooks{Program: "/bin/x"}
	var out bytes.Buffer
	if err := h.tell([]byte(before), name, &readyRoot{}, &out); err != nil || out.String() != want {
		t.Errorf("%s\nbecomes\n%s, error %v, want\n%s", before, out.String(), err, want)
	}
	for _, config := range []string{`null`, `{"hooks":[]}`, `{"hooks":{"poststop":{}}}`} {
		out.Reset()
		if err := h.tell([]byte(config), name, &readyRoot{}, &out); err == nil || out.Len() > 0 {
			t.Errorf("%s becomes %s", config, out.String())
		}
	}
}

func TestMountName(t *testing.T) {
	name, err := mountName()
	if err != nil {
		t.Fatal(err)
	}
	if age, ours := mountAge(name); !ours || age < 0 || age > time.Minute {
		t.Errorf("%s is %s old, a name %t", name, age, ours)
	}
	if other, err := mountName(); err != nil || other == name {
		t.Errorf("again %s, error %v", other, err)
	}
	now, err := uptime()
	if err != nil {
		t.Fatal(err)
	}
	const random = "ABCDEFGHIJKLMNOPQRSTUVW234"
	early := fmt.Sprintf("%016x-%s", now.Milliseconds()-5000, random)
	if age, ours := mountAge(early); !ours || age < 5*time.Second || age > time.Minute {
		t.Errorf("%s is %s old, a name %t", early, age, ours)
	}
	if _, ours := mountAge("7fffffffffffffff-" + random); !ours {
		t.Error("the latest time is none of a name")
	}
	for _, name := range []string{
		"", ".", "..", "ns", "0000000000000001", "0000000000000001-", "1-" + random, "0000000000000001-" + random + "X",
		"0000000000000001-" + strings.ToLower(random), "000000000000000g-" + random, "0000000000000001-ABCDEFGHIJKLMNOPQRSTUVW23/",
	} {
		if age, ours := mountAge(name); ours || age != 0 {
			t.Errorf("%q is %s old, a name %t", name, age, ours)
		}
		if err := Poststop(name); !errors.Is(err, unix.EINVAL) {
			t.Errorf("poststop %q: error %v", name, err)
		}
		if err := Poststart(name, strings.NewReader(`{"pid":1}`)); !errors.Is(err, unix.EINVAL) {
			t.Errorf("poststart %q: error %v", name, err)
		}
	}
}

func TestWantsImage(t *testing.T) {
	const image = `"dev.ublk-loop.rootfs.image":"/x"`
	for text, want := range map[string]bool{
		`{}`:                              false,
		`{"annotations":{` + image + `}}`: true,
		`{"annotations":{` + image + `,"io.kubernetes.cri.container-type":"container"}}`:  true,
		`{"annotations":{` + image + `,"io.kubernetes.cri.container-type":"sandbox"}}`:    false,
		`{"annotations":{` + image + `,"io.kubernetes.cri-o.ContainerType":"container"}}`: true,
		`{"annotations":{` + image + `,"io.kubernetes.cri-o.ContainerType":"sandbox"}}`:   false,
		`{"annotations":{"io.kubernetes.cri.container-type":"container"}}`:                false,
		`{"annotations":{` + image + `,"org.example":"sandbox"}}`:                         true,
	} {
		c, err := parseConfig([]byte(text))
		if err != nil || c.wantsImage() != want {
			t.Errorf("%s: wants an image: %v, error %v", text, !want, err)
		}
	}
}

func TestHasHookRoot(t *testing.T) {
	for path, want := range map[string]bool{"": false, "rootfs": false, "/run/ublk-loop-oci/ns/rootfs": false, "/run/ublk-loop-oci/hooks/x/rootfs": true, "/run/ublk-loop-oci/hooks/../ns": false} {
		c := &config{}
		c.Root.Path = path
		if got := c.hasHookRoot(); got != want {
			t.Errorf("%s: %t", path, got)
		}
	}
}
