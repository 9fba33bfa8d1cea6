package driver

import (
	"path/filepath"
	"testing"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
)

// layer returns the record of a layer that is ready.
func layer(id, parent string) *pool.Layer {
	return &pool.Layer{ID: id, State: pool.Ready, Parent: parent}
}

// A store is merged with the layer below it if only the store needs that layer, if nothing writes to
// the store, and if no device can have other layers between them. Two stores are merged only in a
// chain that is long.
func TestMergeable(t *testing.T) {
	p, err := pool.Open(filepath.Join(t.TempDir(), "pool"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	short := []*pool.Layer{layer("image", ""), layer("a", "image"), layer("b", "a"), layer("top", "b")}
	long := append(short[:3:3], layer("c", "b"), layer("top", "c"))
	merged := func(parent string) *pool.Layer {
		return &pool.Layer{ID: "a", Parent: parent, Into: "image", State: pool.Ready}
	}
	for _, tt := range []struct {
		what      string
		layers    []*pool.Layer
		snapshots []string
		want      string
	}{
		{"nothing needs the image", short, nil, "a"},
		{"a snapshot shows the image", short, []string{"image"}, ""},
		{"in a long chain, a snapshot shows the image", long, []string{"image", "b", "c"}, "b"},
		{"snapshots show the stores", long, []string{"image", "a", "b"}, ""},
		{"another store is above the image", append(short[:4:4], layer("other", "image")), nil, ""},
		{"only the written store is above it", []*pool.Layer{layer("image", ""), layer("top", "image")}, nil, ""},
		{"a merged layer has files", []*pool.Layer{short[0], merged("image"), short[2], short[3]}, nil, ""},
		{"a merged layer has no files", []*pool.Layer{short[0], merged(""), short[2], short[3]}, nil, "b"},
		{"a snapshot shows a merged layer", []*pool.Layer{short[0], merged(""), short[2], short[3]}, []string{"a"}, ""},
		{"the image is not complete", append([]*pool.Layer{{ID: "image", State: pool.Making}}, short[1:]...), nil, ""},
		{"the image has another size", append([]*pool.Layer{{ID: "image", State: pool.Ready, Size: 1}}, short[1:]...), nil, ""},
	} {
		var snapshots []*pool.Snapshot
		for _, id := range tt.snapshots {
			snapshots = append(snapshots, &pool.Snapshot{Layer: id})
		}
		got := ""
		if l := newForest(tt.layers, []*pool.Volume{{Top: "top"}}, snapshots).mergeable(p, nil); l != nil {
			got = l.ID
		}
		if got != tt.want {
			t.Errorf("%s: %q is merged, want %q", tt.what, got, tt.want)
		}
	}
}

// A volume with as many layers as it can have is divided once more if its store can then be merged.
func TestMergesBelow(t *testing.T) {
	layers := []*pool.Layer{layer("image", ""), layer("a", "image"), layer("top", "a")}
	for snapshot, want := range map[string]bool{"image": true, "a": false} {
		f := newForest(layers, []*pool.Volume{{Top: "top"}}, []*pool.Snapshot{{Layer: snapshot}})
		if got := f.mergesBelow("top"); got != want {
			t.Errorf("a snapshot shows %s: %v, want %v", snapshot, got, want)
		}
	}
	if newForest(layers, nil, nil).mergesBelow("gone") {
		t.Error("a layer that does not exist can be merged")
	}
}
