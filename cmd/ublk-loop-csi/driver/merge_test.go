package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
)

// Without space nothing is merged. Without a server, a layer is merged, and its files stay, because a
// device can have them.
func TestMergeLayers(t *testing.T) {
	p, err := pool.Open(filepath.Join(t.TempDir(), "pool"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	image, store, top := pool.NewLayerID("n"), pool.NewLayerID("n"), pool.NewLayerID("n")
	v := &pool.Volume{ID: pool.ID(pool.Volumes, "n", "v"), State: pool.Ready, Size: 1 << 20, Top: top}
	if err := errors.Join(p.MakeImageLayer(image, 1<<20, false), p.MakeStore(store, image, false), p.MakeStore(top, store, false), p.Volumes.Write(v.ID, v)); err != nil {
		t.Fatal(err)
	}
	merge := func(reserve int64) (*pool.Layer, error) {
		t.Helper()
		d, err := New(p, Options{Node: "n", Overcommit: 1, Reserve: reserve, Socket: filepath.Join(t.TempDir(), "none.sock")})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		err = d.mergeLayers(t.Context())
		l, e := p.Layers.Read(store)
		if e != nil {
			t.Fatal(e)
		}
		return l, err
	}
	if l, err := merge(1 << 60); !errors.Is(err, unix.ENOSPC) || l.IsMerged() {
		t.Errorf("without space: %+v, error %v", l, err)
	}
	if l, err := merge(0); !errors.Is(err, client.ErrNoServer) || l.Into != image || l.Parent != image {
		t.Errorf("without a server: %+v, error %v", l, err)
	}
	if _, err := os.Stat(p.Layers.ImagePath(store)); err != nil {
		t.Error(err)
	}
	if chain, err := p.Chain(top); err != nil || len(chain) != 2 || chain[0].ID != image {
		t.Errorf("the chain is %v, error %v", chain, err)
	}
}

// A merge that fails is tried again after pauses that grow, and keeps no other layers from being merged.
func TestMergeAfterErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := pool.Open(filepath.Join(t.TempDir(), "pool"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = p.Close() }()
		const broken = 8 // stores, and as many good ones
		ctx, end := context.WithCancel(t.Context())
		tries, merges := 0, 0
		d, err := newIdle(p, Options{Node: "n", Overcommit: 1, Socket: filepath.Join(t.TempDir(), "none.sock"), Step: func(name string) {
			switch name {
			case "merge: image written":
				if tries++; tries > 100*broken {
					end()
				}
			case "merge: recorded":
				merges++
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		d.reconciled = true // there is no server
		for i := range 2 * broken {
			image, store, top := pool.NewLayerID("n"), pool.NewLayerID("n"), pool.NewLayerID("n")
			v := &pool.Volume{ID: pool.ID(pool.Volumes, "n", fmt.Sprint(i)), State: pool.Ready, Size: 1 << 20, Top: top}
			if err := errors.Join(p.MakeImageLayer(image, 1<<20, false), p.MakeStore(store, image, false), p.MakeStore(top, store, false), p.Volumes.Write(v.ID, v)); err != nil {
				t.Fatal(err)
			}
			if i < broken {
				if err := os.Truncate(p.Layers.ImagePath(store), 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := d.mergeLayers(ctx); err == nil || merges != broken {
			t.Errorf("%d merges, error %v", merges, err)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			d.mergeInBackground(ctx)
		}()
		d.wakeMerger()
		for elapsed := time.Duration(0); elapsed < time.Hour && ctx.Err() == nil; elapsed += time.Second {
			time.Sleep(time.Second)
		}
		end()
		<-ended
		if passes := tries / broken; passes < 5 || passes > 20 {
			t.Errorf("%d passes in an hour", passes)
		}
		d.Close()
	})
}
