package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
)

// digest identifies everything that the tests of a package are built from: the sources
// and test data of each imported package of the module, and the versions of Go and of
// other modules. A result is valid for one digest only.
func digest(directories []string) (string, error) {
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.Version(), runtime.GOARCH)
	for _, dir := range directories {
		if err := addDirectory(sum, dir); err != nil {
			return "", err
		}
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		if err := addFile(sum, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return hex.EncodeToString(sum.Sum(nil)[:8]), nil
}

// directoriesOf returns the directories of the packages of this module that the tests of
// a package import.
func directoriesOf(ctx context.Context, dir string) ([]string, error) {
	all, err := goList(ctx, "-deps", "-test", "./"+dir)
	if err != nil {
		return nil, err
	}
	var directories []string
	for _, l := range all {
		if l.Module != nil && l.Module.Main && l.Dir != "" && !slices.Contains(directories, l.Dir) {
			directories = append(directories, l.Dir)
		}
	}
	return directories, nil
}

// addDirectory adds the files of a package and its test data, but no packages in
// directories below.
func addDirectory(sum hash.Hash, dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.Type().IsRegular():
			return addFile(sum, path)
		case entry.IsDir() && path != dir && filepath.Dir(path) == dir && entry.Name() != "testdata":
			return fs.SkipDir
		}
		return nil
	})
}

func addFile(sum hash.Hash, path string) error {
	src, err := os.ReadFile(path)
	if err == nil {
		fmt.Fprintln(sum, filepath.Base(path), len(src))
		sum.Write(src)
	}
	return err
}
