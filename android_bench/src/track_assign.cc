#include "track_assign.h"

#include <limits>
#include <utility>

namespace mobileinst::track {
namespace {

constexpr double kFar = std::numeric_limits<double>::infinity();

// Shortest augmenting paths with potentials, no start from a greedy solution (D. F. Crouse, On
// implementing 2D rectangular assignment algorithms, IEEE Trans. Aerospace and Electronic Systems
// 52(4), 2016): rows are admitted one by one, each along the path of lowest reduced cost to a free
// column; the potentials keep every reduced cost from falling below zero.
class Assignment {
 public:
  Assignment(const std::vector<double>& cost, std::size_t rows, std::size_t columns)
      : cost_(cost.data()),
        columns_(columns),
        none_(rows),
        of_row_(rows, 0.0),
        of_column_(columns, 0.0),
        owner_(columns, none_),
        match_(rows, 0),
        distance_(columns),
        before_(columns),
        open_(columns) {}

  void admit(std::size_t start) {
    distance_.assign(columns_, kFar);
    before_.assign(columns_, start);
    // Ties decide whose identity goes on, so the order in which columns are looked at is part of
    // the specification: from the last to the first, and what is settled changes places with the
    // last one that is not.
    for (std::size_t k = 0; k < columns_; ++k) open_[k] = columns_ - 1 - k;
    left_ = columns_;
    length_ = 0.0;
    std::size_t column = nearest(start);
    while (owner_[column] != none_) column = nearest(owner_[column]);
    shift_potentials(start);
    augment(start, column);
  }

  const std::vector<std::size_t>& match() const { return match_; }

 private:
  // Settles the column that is nearest now that `row` is on the way. Among equally near ones a free
  // one comes first: it ends the search.
  std::size_t nearest(std::size_t row) {
    const double* const costs = cost_ + row * columns_;
    const double base = length_ - of_row_[row];
    std::size_t best = 0;
    double lowest = kFar;
    for (std::size_t k = 0; k < left_; ++k) {
      const std::size_t j = open_[k];
      const double through = base + costs[j] - of_column_[j];
      if (through < distance_[j]) {
        distance_[j] = through;
        before_[j] = row;
      }
      if (distance_[j] < lowest || (distance_[j] == lowest && owner_[j] == none_)) {
        lowest = distance_[j];
        best = k;
      }
    }
    length_ = lowest;
    const std::size_t column = open_[best];
    --left_;
    open_[best] = open_[left_];
    open_[left_] = column;  // behind `left_`: those that are settled
    return column;
  }

  void shift_potentials(std::size_t start) {
    of_row_[start] += length_;
    for (std::size_t k = left_; k < columns_; ++k) {
      const std::size_t j = open_[k];
      const double by = length_ - distance_[j];
      if (owner_[j] != none_) of_row_[owner_[j]] += by;
      of_column_[j] -= by;
    }
  }

  // Every row on the way hands its column to the row before it.
  void augment(std::size_t start, std::size_t column) {
    for (std::size_t row = none_; row != start;) {
      row = before_[column];
      owner_[column] = row;
      std::swap(match_[row], column);
    }
  }

  const double* const cost_;
  const std::size_t columns_, none_;  // no row: the owner of a free column
  std::vector<double> of_row_, of_column_;
  std::vector<std::size_t> owner_, match_;
  std::vector<double> distance_;      // of each column from the row that is being admitted
  std::vector<std::size_t> before_;   // the row from which a column was reached
  std::vector<std::size_t> open_;     // the columns, those not settled first
  std::size_t left_ = 0;              // how many of them are not settled
  double length_ = 0.0;               // of the way to the column settled last
};

}  // namespace

std::vector<std::size_t> assign(const std::vector<double>& cost, std::size_t rows,
                                std::size_t columns) {
  Assignment assignment(cost, rows, columns);
  for (std::size_t row = 0; row < rows; ++row) assignment.admit(row);
  return assignment.match();
}

}  // namespace mobileinst::track
