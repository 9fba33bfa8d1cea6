package oci

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

// store makes a store with a label, or without one.
func (b *diskBed) store(label *snapshot.Label) {
	b.Helper()
	f, err := os.Create(b.dir + "/stores/store")
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	layout, err := snapshot.NewLayout(cowChunk)
	if err == nil {
		err = snapshot.FormatLabelled(f, layout, label)
	}
	if err != nil {
		b.Fatal(err)
	}
}

// A store whose label says that it has changes of another image, or of a store, is refused.
func TestStoreOfAnotherImage(t *testing.T) {
	b := newDiskBed(t)
	const size = 64 << 10
	other := b.dir + "/images/other"
	b.write(other, strings.Repeat("d", size))
	info, err := os.Stat(b.image)
	if err != nil {
		t.Fatal(err)
	}
	link := b.dir + "/was-here"
	if err := os.Symlink(b.image, link); err != nil {
		t.Fatal(err)
	}
	whole, uuid := uint64(info.Size()), snapshot.NewUUID()
	for name, tt := range map[string]struct {
		label   *snapshot.Label
		checked bool // by verity, which leaves the tree out
		refused string
	}{
		"no label":            {nil, false, ""},
		"the image":           {&snapshot.Label{UUID: uuid, OriginPath: b.image, OriginSize: whole}, false, ""},
		"the checked image":   {&snapshot.Label{UUID: uuid, OriginPath: b.image, OriginSize: size}, true, ""},
		"with its tree":       {&snapshot.Label{UUID: uuid, OriginPath: b.image, OriginSize: whole}, true, ""},
		"by a link":           {&snapshot.Label{UUID: uuid, OriginPath: link, OriginSize: whole + 511}, false, ""},
		"a moved image":       {&snapshot.Label{UUID: uuid, OriginPath: "/nothing", OriginSize: whole + 511}, false, "which is gone"},
		"another image":       {&snapshot.Label{UUID: uuid, OriginPath: other, OriginSize: whole}, false, "has changes of " + other},
		"another size":        {&snapshot.Label{UUID: uuid, OriginPath: b.image, OriginSize: size}, false, "of 65536 bytes"},
		"a moved larger one":  {&snapshot.Label{UUID: uuid, OriginPath: "/nothing", OriginSize: whole + 512}, true, "bytes, not of"},
		"a store of the path": {&snapshot.Label{UUID: uuid, OriginPath: b.image, OriginSize: whole, Parent: uuid}, false, "changes of the store"},
	} {
		b.store(tt.label)
		asked := []string{"options", "rw", "cow", "file:" + b.dir + "/stores/store"}
		if tt.checked {
			asked = append(asked, "verity.roothash", b.root)
		}
		_, err := b.request(Requester{}, asked...)
		if (tt.refused != "") != errors.Is(err, unix.EINVAL) || err != nil && !strings.Contains(err.Error(), tt.refused) || err != nil && tt.refused == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	b.write(b.dir+"/stores/store", "")
	if _, err := b.request(Requester{}, "options", "rw", "cow", "file:"+b.dir+"/stores/store"); err == nil {
		t.Error("a file without a header is taken")
	}
}
