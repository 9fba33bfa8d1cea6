package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// imageName is the name of the tests' image.
const imageName = "example.org/busybox:1"

// archiveImage makes an archive of an image with several layers, in the OCI layout
// (image-layout.md of the image specification), for ctr image import.
func (b *bed) archiveImage(layers ...layer) string {
	b.Helper()
	a := &archive{b, layer{}}
	var diffIDs []string
	var descriptors []map[string]any
	for _, l := range layers {
		d := a.blob("application/vnd.oci.image.layer.v1.tar", l.tar(b))
		digest, _ := d["digest"].(string)
		descriptors, diffIDs = append(descriptors, d), append(diffIDs, digest)
	}
	config := a.blobJSON("application/vnd.oci.image.config.v1+json", map[string]any{
		"architecture": "amd64", "os": "linux",
		"config": map[string]any{"Cmd": []string{"/bin/sh"}, "Env": []string{"PATH=/bin"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
	})
	const manifestType = "application/vnd.oci.image.manifest.v1+json"
	manifest := a.blobJSON(manifestType, map[string]any{
		"schemaVersion": 2, "mediaType": manifestType, "config": config, "layers": descriptors,
	})
	manifest["annotations"] = map[string]string{"io.containerd.image.name": imageName}
	a.file("index.json", encoded(b, map[string]any{"schemaVersion": 2, "manifests": []any{manifest}}))
	a.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	path := filepath.Join(b.dir, "image.tar")
	if err := os.WriteFile(path, a.files.tar(b), 0o600); err != nil {
		b.Fatal(err)
	}
	return path
}

// archive collects the files of an archive.
type archive struct {
	b     *bed
	files layer
}

func (a *archive) file(name string, content []byte) { a.files[name] = string(content) }

// blob adds content under its digest, and returns its descriptor.
func (a *archive) blob(mediaType string, content []byte) map[string]any {
	sum := sha256.Sum256(content)
	a.file(fmt.Sprintf("blobs/sha256/%x", sum), content)
	return map[string]any{"mediaType": mediaType, "digest": fmt.Sprintf("sha256:%x", sum), "size": len(content)}
}

func (a *archive) blobJSON(mediaType string, v any) map[string]any {
	return a.blob(mediaType, encoded(a.b, v))
}

func encoded(b *bed, v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		b.Fatal(err)
	}
	return text
}

// layer is a directory tree: it maps names to the content of files. Content that begins
// with "-> " is a link. A name that ends with / is a directory.
type layer map[string]string

func (l layer) tar(b *bed) []byte {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for name, content := range l {
		h := &tar.Header{Name: name, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg}
		if target, isLink := strings.CutPrefix(content, "-> "); isLink {
			h.Typeflag, h.Linkname, h.Size, content = tar.TypeSymlink, target, 0, ""
		} else if strings.HasSuffix(name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			b.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	return out.Bytes()
}

// unpack writes the layer into a new directory.
func (l layer) unpack(b *bed) string {
	b.Helper()
	dir := b.TempDir()
	for name, content := range l {
		path := filepath.Join(dir, name)
		b.mkdir(filepath.Dir(path))
		var err error
		if target, isLink := strings.CutPrefix(content, "-> "); isLink {
			err = os.Symlink(target, path)
		} else if strings.HasSuffix(name, "/") {
			b.mkdir(path)
		} else {
			err = os.WriteFile(path, []byte(content), 0o755)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	return dir
}
