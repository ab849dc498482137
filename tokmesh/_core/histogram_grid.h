/* The log-linear grid by which histograms find a bucket: eight cells an octave; values 0..7 have a cell each. 61 octaves above 8
   give 8 + 61 * 8 = 496 cells. A header, because two modules put it into functions that must not call one another. */
#ifndef TOKMESH_HISTOGRAM_GRID_H
#define TOKMESH_HISTOGRAM_GRID_H

static inline int tm_histogram_cell(unsigned long long value) {
    if (value < 8) return (int)value;
    int exponent = 63 - __builtin_clzll(value);
    return (exponent - 2) * 8 + (int)((value >> (exponent - 3)) & 7);
}

static inline unsigned long long tm_histogram_cell_start(int cell) {
    if (cell < 8) return (unsigned long long)cell;
    return (unsigned long long)(8 + cell % 8) << (cell / 8 - 1);
}

#endif
