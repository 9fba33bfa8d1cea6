package pool

import (
	"io"
	"os"
)

// Disk reads what a chain shows. Nothing writes to its layers.
type Disk struct {
	size   int64
	files  []*os.File
	stores []*changes // the uppermost first
}

// NewDisk returns the disk of a chain, which has a size. It owns the files, which are from OpenLayers.
func NewDisk(size int64, chain []*Layer, files []*os.File) (*Disk, error) {
	d := &Disk{size: size, files: files}
	for i := len(chain) - 1; i > 0; i-- {
		c, err := readChanges(files[i], chain[i].Size)
		if err != nil {
			d.Close()
			return nil, err
		}
		d.stores = append(d.stores, c)
	}
	return d, nil
}

// Close closes the files.
func (d *Disk) Close() { CloseLayers(d.files) }

// ReadAt implements io.ReaderAt.
func (d *Disk) ReadAt(p []byte, at int64) (done int, err error) {
	if left := max(d.size-at, 0); left < int64(len(p)) {
		done, err = d.ReadAt(p[:left], at)
		if err == nil {
			err = io.EOF
		}
		return done, err
	}
	for done < len(p) && err == nil {
		n := int(min(int64(len(p)-done), chunkBytes-(at+int64(done))%chunkBytes))
		n, err = d.readChunk(p[done:done+n], at+int64(done))
		done += n
	}
	return done, err
}

// readChunk reads a part of a chunk.
func (d *Disk) readChunk(p []byte, at int64) (int, error) {
	for _, s := range d.stores {
		if c, ok := s.chunk(uint64(at) >> s.layout.Shift()); ok {
			return s.store.ReadAt(p, c.from+at-c.at)
		}
	}
	return d.files[0].ReadAt(p, at)
}
