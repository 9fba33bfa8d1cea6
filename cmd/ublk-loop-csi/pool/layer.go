package pool

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/filecopy"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/transfer/table"
)

// MaxChain is the largest number of layers of a volume. A device needs memory for each of them.
const MaxChain = 8

// chunkBytes is the chunk size of new stores.
const chunkBytes = 64 << 10

// findSharing finds out whether files of the pool can share blocks.
func (p *Pool) findSharing() error {
	var files [2]*os.File
	for i := range files {
		f, err := p.root.OpenFile(fmt.Sprint("probe", i), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		if err := p.root.Remove(fmt.Sprint("probe", i)); err != nil {
			return err
		}
		files[i] = f
	}
	err := filecopy.Share(files[0], files[1])
	p.Shares = err == nil
	if filecopy.IsUnsupported(err) {
		return nil
	}
	return err
}

// CanLayer reports whether volumes of the pool can have layers: the tables of their devices
// cannot name every path.
func (p *Pool) CanLayer() bool {
	path := p.root.Name()
	return !strings.ContainsAny(path, " \t\n\v\f\r#,;\\") && strings.IndexByte(path, 0xa0) < 0
}

// Chain returns a layer and those below it, beginning with the image. Layers that were merged into
// others are left out.
func (p *Pool) Chain(top string) ([]*Layer, error) {
	var chain []*Layer
	for id := top; id != ""; {
		if len(chain) > MaxChain {
			return nil, fmt.Errorf("more than %d layers below %s: %w", MaxChain, top, unix.ELOOP)
		}
		l, err := p.Layer(id)
		if err != nil {
			return nil, fmt.Errorf("layers of %s: %w", top, err)
		}
		chain = append([]*Layer{l}, chain...)
		id = l.Parent
	}
	return chain, nil
}

// maxMerges bounds how often a layer can have been merged into another. It is more than the pool
// lets happen to the layers below a snapshot.
const maxMerges = 64

// Layer returns the layer that has the content of a layer: itself, or what it was merged into.
func (p *Pool) Layer(id string) (*Layer, error) {
	for range maxMerges {
		l, err := p.Layers.Read(id)
		if err != nil || !l.IsMerged() {
			return l, err
		}
		id = l.Into
	}
	return nil, fmt.Errorf("layer %s was merged more than %d times: %w", id, maxMerges, unix.ELOOP)
}

// OpenLayers opens the images of layers with flags of open(2).
func (p *Pool) OpenLayers(chain []*Layer, flags int) (files []*os.File, err error) {
	for _, l := range chain {
		f, err := p.Layers.OpenImage(l.ID, flags)
		if err != nil {
			CloseLayers(files)
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// CloseLayers closes the files of OpenLayers.
func CloseLayers(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// OpenDisk opens the file that a volume writes to: its image, or its upper layer.
func (p *Pool) OpenDisk(v *Volume, flags int) (*os.File, error) {
	if v.Top != "" {
		return p.Layers.OpenImage(v.Top, flags)
	}
	return p.Volumes.OpenImage(v.ID, flags)
}

// DiskPath returns the absolute path of the file of OpenDisk.
func (p *Pool) DiskPath(v *Volume) string {
	if v.Top != "" {
		return p.Layers.ImagePath(v.Top)
	}
	return p.Volumes.ImagePath(v.ID)
}

// Allocated returns the bytes that the file of OpenDisk takes on disk.
func (p *Pool) Allocated(v *Volume) (int64, error) {
	if v.Top != "" {
		return p.Layers.Allocated(v.Top)
	}
	return p.Volumes.Allocated(v.ID)
}

// MakeImageLayer makes an empty image as a layer.
func (p *Pool) MakeImageLayer(id string, size int64, thick bool) error {
	l := &Layer{ID: id, State: Making, Size: size}
	return p.makeLayer(l, func() error { return p.Layers.Create(id, size, thick) })
}

// AdoptImage makes the image of a volume a layer, which has the same file. The volume has it
// too until RemoveImage.
func (p *Pool) AdoptImage(id string, v *Volume) error {
	l := &Layer{ID: id, State: Making, Size: v.ImageSize()}
	return p.makeLayer(l, func() error {
		err := p.root.Link(p.Volumes.name(v.ID, imageSuffix), p.Layers.name(id, imageSuffix))
		if err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		return syncName(p.root, string(Layers))
	})
}

// MakeStore makes an empty store above a layer. With thick it also allocates all blocks, so that no write
// finds the pool full.
func (p *Pool) MakeStore(id, parent string, thick bool) error {
	below, err := p.Layer(parent)
	if err != nil {
		return err
	}
	l := &Layer{ID: id, State: Making, Size: below.Size, Parent: below.ID}
	return p.makeLayer(l, func() error {
		return p.Layers.make(id, func(f *os.File) error { return format(f, l.Size, p.Layers.ImagePath(below.ID), thick) })
	})
}

// makeLayer writes the record of a layer before and after its file is made.
func (p *Pool) makeLayer(l *Layer, fill func() error) error {
	if err := p.Layers.Write(l.ID, l); err != nil {
		return err
	}
	if err := fill(); err != nil {
		return err
	}
	l.State = Ready
	return p.Layers.Write(l.ID, l)
}

// format makes a store in an empty file, with room for a change of each chunk.
func format(f *os.File, size int64, origin string, thick bool) error {
	layout, err := snapshot.NewLayout(chunkBytes)
	if err != nil {
		return err
	}
	bytes, err := StoreBytes(size)
	if err != nil {
		return err
	}
	if err := grow(f, 0, bytes, thick); err != nil {
		return err
	}
	return snapshot.FormatLabelled(f, layout, &snapshot.Label{UUID: snapshot.NewUUID(), OriginSize: uint64(size), OriginPath: origin})
}

// StoreBytes returns the size of a store in which every chunk of a disk has changed.
func StoreBytes(size int64) (int64, error) {
	layout, err := snapshot.NewLayout(chunkBytes)
	if err != nil {
		return 0, err
	}
	chunks, err := layout.OriginChunks(uint64(size))
	return int64(layout.StoreSize(chunks)), err
}

// Table returns the tables of the disk of a chain, as ublk-loop reads them. They name the files in
// the order of the chain. An image alone is written to. With a cover, the layers have encrypted data.
func (p *Pool) Table(chain []*Layer, cover *table.Crypt) string {
	origin := p.Layers.ImagePath(chain[0].ID)
	size := uint64(chain[len(chain)-1].Size / 512)
	if len(chain) == 1 && cover != nil {
		return covered(cover, origin, size)
	}
	if len(chain) == 1 {
		return fmt.Sprintf("0 %d linear %s 0", size, origin)
	}
	var tables []string
	for i, l := range chain[1:] {
		mode := "ro"
		if i == len(chain)-2 {
			mode = "rw"
		}
		tables = append(tables, fmt.Sprintf("layer%d,,,%s,0 %d snapshot %s %s P %d", i+1, mode, size, origin, p.Layers.ImagePath(l.ID), chunkBytes/512))
		origin = fmt.Sprint("/dev/mapper/layer", i+1)
	}
	if cover != nil {
		tables = append(tables, "cover,,,rw,"+covered(cover, origin, size))
	}
	return strings.Join(tables, ";")
}

// covered returns the line of a cover over the rest of a disk.
func covered(cover *table.Crypt, disk string, size uint64) string {
	target := *cover
	target.Device = disk
	l := table.Line{Length: size - cover.Start, Target: &target}
	return l.String()
}
