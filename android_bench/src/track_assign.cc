#include "track_assign.h"

#include <limits>

namespace mobileinst::track {

// Shortest augmenting paths with potentials (Jonker and Volgenant, Computing 38, 1987): rows are
// admitted one by one, each along the path of lowest reduced cost to a free column; the potentials
// keep every reduced cost from falling below zero.
std::vector<std::size_t> assign(const std::vector<double>& cost, std::size_t rows,
                                std::size_t columns) {
  constexpr double kFar = std::numeric_limits<double>::infinity();
  const std::size_t none = rows;  // no row; also the row of columns that are free
  std::vector<double> of_row(rows, 0.0), of_column(columns, 0.0);
  std::vector<std::size_t> owner(columns, none), match(rows, 0);
  std::vector<double> distance(columns);
  std::vector<std::size_t> before(columns);  // the row from which a column was reached
  std::vector<char> settled(columns);

  for (std::size_t start = 0; start < rows; ++start) {
    distance.assign(columns, kFar);
    settled.assign(columns, 0);
    std::size_t row = start, sink = columns;
    double length = 0.0;
    while (sink == columns) {
      std::size_t nearest = columns;
      for (std::size_t j = 0; j < columns; ++j) {
        if (settled[j] != 0) continue;
        const double through = length + cost[row * columns + j] - of_row[row] - of_column[j];
        if (through < distance[j]) {
          distance[j] = through;
          before[j] = row;
        }
        if (nearest == columns || distance[j] < distance[nearest]) nearest = j;
      }
      length = distance[nearest];
      settled[nearest] = 1;
      if (owner[nearest] == none) {
        sink = nearest;
      } else {
        row = owner[nearest];
      }
    }
    of_row[start] += length;
    for (std::size_t j = 0; j < columns; ++j) {
      if (settled[j] == 0 || j == sink) continue;
      of_row[owner[j]] += length - distance[j];
      of_column[j] -= length - distance[j];
    }
    for (std::size_t j = sink;;) {
      const std::size_t from = before[j];
      owner[j] = from;
      if (from == start) {
        match[from] = j;
        break;
      }
      std::size_t next = match[from];
      match[from] = j;
      j = next;
    }
  }
  return match;
}

}  // namespace mobileinst::track
