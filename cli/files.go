package cli

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// maxInput bounds what one file or standard input may hold, in bytes.
const maxInput = 64 << 20

// input is one file of resources.
type input struct {
	name string
	data []byte
}

// readInputs reads what -f names, in order: "-" is standard input, a directory is read recursively for .yaml, .yml and
// .json files in the order of their paths. Naming one file twice reads it once.
func readInputs(stdin io.Reader, paths []string) ([]input, error) {
	var out []input
	seen := map[string]bool{}
	for _, path := range paths {
		if path == "-" {
			data, err := readBounded("standard input", stdin)
			if err != nil {
				return nil, err
			}
			out = append(out, input{name: "<stdin>", data: data})
			continue
		}
		files, err := filesUnder(path)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			if clean := filepath.Clean(file); !seen[clean] {
				seen[clean] = true
				data, err := readFile(file)
				if err != nil {
					return nil, err
				}
				out = append(out, input{name: file, data: data})
			}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no .yaml, .yml or .json file in %v", paths)
	}
	return out, nil
}

func filesUnder(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	var files []string
	err = filepath.WalkDir(path, func(file string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(file)) {
			files = append(files, file)
		}
		return err
	})
	return files, err
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBounded(path, f)
}

func readBounded(name string, r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxInput+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > maxInput {
		return nil, fmt.Errorf("%s is larger than %d MiB; split it into several files", name, maxInput>>20)
	}
	return data, nil
}
